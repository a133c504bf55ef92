package txn_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/saga/txn"
)

var states = []txn.State{txn.Running, txn.Committing, txn.RollingBack, txn.Committed, txn.RolledBack, txn.Parked, txn.Abandoned}

func TestStateNames(t *testing.T) {
	for _, s := range states {
		if got, err := txn.ParseState(s.String()); err != nil || got != s {
			t.Errorf("ParseState(%q) = %v, %v", s.String(), got, err)
		}
	}
	for _, name := range []string{"", "running", "STATE(0)", "PAUSED"} {
		if _, err := txn.ParseState(name); err == nil {
			t.Errorf("ParseState(%q) takes it", name)
		}
	}
	if txn.State(0).Valid() || txn.State(8).Valid() || txn.State(8).String() != "STATE(8)" {
		t.Error("0 or 8 is a state")
	}
}

func TestLegal(t *testing.T) {
	legal := map[txn.State]string{
		txn.Running:     "RUNNING COMMITTING ROLLING_BACK COMMITTED ROLLED_BACK PARKED ABANDONED",
		txn.Committing:  "COMMITTING COMMITTED PARKED ABANDONED",
		txn.RollingBack: "RUNNING ROLLING_BACK ROLLED_BACK PARKED ABANDONED",
		txn.Parked:      "RUNNING COMMITTING ROLLING_BACK COMMITTED ROLLED_BACK PARKED ABANDONED",
	}
	for _, from := range states {
		for _, to := range states {
			if from == txn.RollingBack && to == txn.Committed {
				continue // a saga whose fenced last step, the pivot, stands: see saga/testdata/script
			}
			want := strings.Contains(" "+legal[from]+" ", " "+to.String()+" ")
			if got := txn.Legal(from, to); got != want {
				t.Errorf("Legal(%s, %s) = %t", from, to, got)
			}
		}
	}
}

func TestVerbs(t *testing.T) {
	var names []string
	for v := txn.VerbRetry; v.Valid(); v++ {
		names = append(names, v.String())
		if v.Whole() != (v == txn.VerbAbort || v == txn.VerbAbandon) {
			t.Errorf("%s.Whole() = %t", v, v.Whole())
		}
	}
	if got := strings.Join(names, " "); got != "retry skip complete fail abort abandon" {
		t.Errorf("got %q", got)
	}
	if txn.Verb(0).Valid() || txn.Verb(7).Valid() || txn.Verb(7).String() != "verb(7)" {
		t.Error("0 or 7 is a verb")
	}
	for ev, want := range map[txn.Event]string{
		txn.TryAgain{}: "retry", txn.Skip{}: "skip", txn.Fail{}: "fail", txn.Abandon{}: "abandon",
	} {
		if ev.EventType() != want {
			t.Errorf("%T is %q, want %q", ev, ev.EventType(), want)
		}
	}
	if (txn.Complete{}).EventType() != "complete" {
		t.Error("Complete has another name")
	}
}

func TestIllegal(t *testing.T) {
	for want, legal := range map[string][]txn.Verb{
		"txn: illegal now: why": nil, "txn: illegal now: why; legal now: skip, abort": {txn.VerbSkip, txn.VerbAbort},
	} {
		if err := txn.Illegal("why", legal); !errors.Is(err, txn.ErrIllegal) || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "order-17/α", strings.Repeat("n", txn.MaxName)} {
		if err := txn.CheckName("gid", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"": "gid is empty", strings.Repeat("n", 129): "129 bytes", "a\xff": "UTF-8", "a b": "space", "a\x00b": "control", "a\u2003": "space",
	} {
		if err := txn.CheckName("gid", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
}

func TestCheckAction(t *testing.T) {
	for name, ok := range map[string]bool{
		"accounts.debit": true, "a.b.c": true, "debit": false, ".debit": false, "accounts.": false, "": false, "a. b": false,
	} {
		if err := txn.CheckAction("action", name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	if s, v := txn.SplitAction("bank.accounts.debit"); s != "bank.accounts" || v != "debit" {
		t.Errorf("got %q, %q", s, v)
	}
}

func TestRetryValidate(t *testing.T) {
	good := []txn.Retry{{}, {Jitter: -1}, {Initial: time.Second, Factor: 1, Cap: time.Second, Attempts: 3}, {Initial: time.Hour}}
	for _, r := range good {
		if err := r.Validate(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for field, r := range map[string]txn.Retry{
		"initial": {Initial: -1}, "factor": {Factor: 0.5}, "cap": {Initial: time.Second, Cap: time.Millisecond},
		"jitter": {Jitter: 2}, "attempts": {Attempts: -1}, "call_timeout": {CallTimeout: -1},
	} {
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), "retry."+field) {
			t.Errorf("%+v: got %v, want it to name %s", r, err, field)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1)} {
		if err := (txn.Retry{Factor: f, Jitter: f}).Validate(); err == nil || !strings.Contains(err.Error(), "jitter") {
			t.Errorf("%v: %v", f, err)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	none := txn.Retry{Jitter: -1}
	for attempt, want := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 3: 400 * time.Millisecond,
		11: time.Minute, 100: time.Minute, math.MaxInt32: time.Minute,
	} {
		if got := none.Delay(attempt, 0.5); got != want {
			t.Errorf("Delay(%d) = %v, want %v", attempt, got, want)
		}
	}
	low, high := (txn.Retry{}).Delay(1, 0), (txn.Retry{}).Delay(1, 0.999999)
	if low != 80*time.Millisecond || high < 119*time.Millisecond || high > 120*time.Millisecond {
		t.Errorf("jitter spreads from %v to %v, want 80ms to 120ms", low, high)
	}
	if r := (txn.Retry{Attempts: 2}); r.Exhausted(1) || !r.Exhausted(2) || (txn.Retry{}).Exhausted(1<<30) {
		t.Error("Exhausted is wrong")
	}
}

func TestReason(t *testing.T) {
	for want, r := range map[string]txn.Reason{
		`step "debit": REFUSED: no money`: {Branch: "debit", Code: txn.CodeRefused, Message: "no money"},
		`ABORTED`:                         {Code: txn.CodeAborted},
		`DEADLINE_EXCEEDED: 10s`:          {Code: txn.CodeDeadline, Message: "10s"},
	} {
		if r.String() != want {
			t.Errorf("got %q, want %q", r.String(), want)
		}
	}
}

func TestOpAndOutcomeNames(t *testing.T) {
	seen := make(map[string]bool)
	for o := txn.Do; o <= txn.Check; o++ {
		seen[o.String()] = true
	}
	for o := txn.OK; o <= txn.Unknown; o++ {
		seen[o.String()] = true
	}
	if len(seen) != 9 || !seen["undo"] || !seen["unknown"] {
		t.Errorf("got %v", seen)
	}
	if txn.Op(0).Valid() || txn.Op(7).String() != "op(7)" || txn.Outcome(0).Valid() || txn.Outcome(4).String() != "outcome(4)" {
		t.Error("names of what does not exist")
	}
}

func TestJSON(t *testing.T) {
	v := 7
	if err := (txn.JSON{}).Unmarshal(nil, &v); err != nil || v != 7 {
		t.Errorf("no bytes: %v, %d", err, v)
	}
	data, err := txn.JSON{}.Marshal(8)
	if err != nil {
		t.Fatal(err)
	}
	if err := (txn.JSON{}).Unmarshal(data, &v); err != nil || v != 8 {
		t.Errorf("got %d, %v", v, err)
	}
	if err := (txn.JSON{}).Unmarshal([]byte("{"), &v); err == nil {
		t.Error("takes half a value")
	}
}
