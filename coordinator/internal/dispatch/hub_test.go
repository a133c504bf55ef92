package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

const (
	codeOK      = amendsv1.OutcomeCode_OUTCOME_CODE_OK
	codeRefused = amendsv1.OutcomeCode_OUTCOME_CODE_REFUSED
	codeUnknown = amendsv1.OutcomeCode_OUTCOME_CODE_UNKNOWN
)

// bubble runs a test in virtual time. A goroutine that is left at the end, after
// Close, fails it.
func bubble(t *testing.T, cfg *Config, fn func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newWorld(t, cfg, nil)) })
}

func TestCallGoesOutWholeAndItsAnswerComesBack(t *testing.T) {
	bubble(t, &Config{Name: "north", Heartbeat: 7 * time.Second}, func(t *testing.T, w *world) {
		p := w.attend(hello("accounts", "a1", 0, "accounts.debit"))
		expires := time.Now().Add(time.Minute)
		w.hub.Send(Call{GID: "g1", Expires: expires, Call: txn.Call{
			Branch: 3, Name: "debit", Action: "accounts.debit", Op: txn.Undo, Attempt: 2, Payload: []byte("req"),
			Replies: []txn.Reply{{Branch: "hold", Action: "cards.hold", Body: []byte("held")}},
			Retry:   txn.Retry{CallTimeout: 3 * time.Second},
		}})
		calls := p.take()
		if len(calls) != 1 {
			t.Fatalf("%d calls, want 1", len(calls))
		}
		c := calls[0]
		got := fmt.Sprint(c.Gid, c.Branch, c.Index, c.Op, c.Action, c.Attempt, string(c.Payload), c.Replies[0].Branch,
			c.Replies[0].Action, string(c.Replies[0].Body), c.Timeout.AsDuration(), c.ExpireTime.AsTime().Equal(expires))
		if want := "g1debit3OP_UNDOaccounts.debit2reqholdcards.holdheld3strue"; strings.ReplaceAll(got, " ", "") != want {
			t.Errorf("call is %s", got)
		}
		if p.welcome.GetCoordinator() != "north" || p.welcome.GetHeartbeat().AsDuration() != 7*time.Second {
			t.Errorf("welcome is %v", p.welcome)
		}
		p.answer(answerTo(c, codeRefused, "no money"), answerTo(c, codeOK, "repeated: counts for nothing"))
		want := Outcome{GID: "g1", Replied: txn.Replied{
			Branch: 3, Op: txn.Undo, Attempt: 2, Outcome: txn.Refused, Message: "no money"}}
		if got := w.outcomes(); len(got) != 1 || !sameOutcome(got[0], want) {
			t.Errorf("outcomes are %v, want %v", got, want)
		}
	})
}

func sameOutcome(a, b Outcome) bool {
	return a.GID == b.GID && a.Branch == b.Branch && a.Op == b.Op && a.Attempt == b.Attempt && a.Outcome == b.Outcome &&
		string(a.Reply) == string(b.Reply) && a.Message == b.Message
}

func TestWireNumbersAreTheMachines(t *testing.T) {
	for op := txn.Do; op <= txn.Cancel; op++ {
		if want := "OP_" + strings.ToUpper(op.String()); amendsv1.Op(op).String() != want {
			t.Errorf("%v goes out as %v", op, amendsv1.Op(op))
		}
	}
	for o := txn.OK; o <= txn.Unknown; o++ {
		if want := "OUTCOME_CODE_" + strings.ToUpper(o.String()); amendsv1.OutcomeCode(o).String() != want {
			t.Errorf("%v comes in as %v", o, amendsv1.OutcomeCode(o))
		}
	}
	for _, code := range []amendsv1.OutcomeCode{0, 4, -1, 257, 258} {
		if o := answer(do("g", "a.b"), &amendsv1.Outcome{Code: code}); o.Outcome != txn.Unknown || o.Message == "" {
			t.Errorf("code %d counts as %v %q, want unknown and why", code, o.Outcome, o.Message)
		}
	}
}

func TestLeastLoadedAndCapacity(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		small := w.attend(hello("s", "small", 2, "s.a"))
		big := w.attend(hello("s", "big", 4, "s.a"))
		for i := range 10 {
			w.hub.Send(do(fmt.Sprint("g", i), "s.a"))
		}
		atSmall, atBig := small.take(), big.take()
		if len(atSmall) != 2 || len(atBig) != 4 {
			t.Fatalf("%d calls at small, %d at big, want 2 and 4", len(atSmall), len(atBig))
		}
		status(t, w, "s: small 2/2, big 4/4, waiting 4, in flight 6")
		big.ok(atBig[:3]...) // room for three more, at big only
		if got := gids(big.take()); !slices.Equal(got, []string{"g6", "g7", "g8"}) {
			t.Errorf("big got %v, want the three that waited longest", got)
		}
		small.ok(atSmall...)
		if got := gids(small.take()); !slices.Equal(got, []string{"g9"}) {
			t.Errorf("small got %v", got)
		}
		status(t, w, "s: small 1/2, big 4/4, waiting 0, in flight 5")
		w.hub.Send(do("last", "s.a"))
		if got := gids(small.take()); !slices.Equal(got, []string{"last"}) {
			t.Errorf("the least loaded got %v", got)
		}
		if n := len(w.outcomes()); n != 5 {
			t.Errorf("%d outcomes, want 5", n)
		}
	})
}

func status(t *testing.T, w *world, want string) {
	t.Helper()
	synctest.Wait()
	var lines []string
	for _, s := range w.hub.Services("") {
		line := s.Name + ":"
		slices.SortFunc(s.Instances, func(a, b Instance) int { return a.Capacity - b.Capacity })
		for _, i := range s.Instances {
			line += fmt.Sprintf(" %s %d/%d,", i.Name, i.InFlight, i.Capacity)
		}
		lines = append(lines, fmt.Sprintf("%s waiting %d, in flight %d", line, s.Waiting, s.InFlight))
	}
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("status is %q\nwant      %q", got, want)
	}
}

func TestEqualInstancesTakeTurns(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		a, b := w.attend(hello("s", "a", 8, "s.a")), w.attend(hello("s", "b", 8, "s.a"))
		for i := range 10 { // one at a time: both are idle each time
			w.hub.Send(do(fmt.Sprint(i), "s.a"))
			for _, p := range []*participant{a, b} {
				if calls := p.take(); len(calls) > 0 {
					p.ok(calls...)
				}
			}
			synctest.Wait()
		}
		if s := w.hub.services[serviceKey{name: "s"}].streams; s[0].given != 5 || s[1].given != 5 {
			t.Errorf("the instances got %d and %d calls, want 5 each", s[0].given, s[1].given)
		}
	})
}

func TestCallWaitsForAnInstanceThatOffersIt(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		offers := func(action string, service, known bool) {
			t.Helper()
			if s, a := w.hub.Offers("", action); s != service || a != known {
				t.Errorf("Offers(%s) = %v, %v", action, s, a)
			}
		}
		w.hub.Send(do("g1", "s.new"), do("g2", "s.old"), do("g3", "s.new"))
		status(t, w, "s: waiting 3, in flight 0")
		offers("s.old", false, false)
		old := w.attend(hello("s", "v1", 8, "s.old"))
		if got := gids(old.take()); !slices.Equal(got, []string{"g2"}) {
			t.Errorf("v1 got %v, want only what it offers", got)
		}
		offers("s.old", true, true)
		offers("s.new", true, false)
		offers("t.new", false, false)
		both := w.attend(hello("s", "v2", 8, "s.old", "s.new"))
		if got := gids(both.take()); !slices.Equal(got, []string{"g1", "g3"}) {
			t.Errorf("v2 got %v, want what waited, in order", got)
		}
		offers("s.new", true, true)
	})
}

func TestOldestFirstAcrossActions(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hub.Send(do("1", "s.a"), do("2", "s.b"), do("3", "s.a"), do("4", "s.b"))
		p := w.attend(hello("s", "i", 1, "s.a", "s.b"))
		var got []string
		for calls := p.take(); len(calls) > 0; calls = p.take() {
			got = append(got, gids(calls)...)
			p.ok(calls...)
		}
		if !slices.Equal(got, []string{"1", "2", "3", "4"}) {
			t.Errorf("order is %v", got)
		}
	})
}

func TestWithdrawAndReplace(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		undo := do("g1", "s.a")
		undo.Op = txn.Undo
		w.hub.Send(do("g1", "s.a"), do("g2", "s.a"), undo, again(do("g2", "s.a")))
		status(t, w, "s: waiting 3, in flight 0")
		w.hub.Withdraw("g1")
		w.hub.Withdraw("nobody")
		status(t, w, "s: waiting 1, in flight 0")
		p := w.attend(hello("s", "a", 8, "s.a"))
		calls := p.take()
		if len(calls) != 1 || calls[0].Gid != "g2" || calls[0].Attempt != 2 {
			t.Fatalf("calls are %v, want the second attempt of g2", calls)
		}
		w.hub.Withdraw("g2") // on the stream: not called back
		p.ok(calls...)
		if got := w.outcomes(); len(got) != 1 || got[0].GID != "g2" {
			t.Errorf("outcomes are %v", got)
		}
		p.cancel()
		status(t, w, "")
		w.hub.Send(do("g3", "s.a"))
		w.hub.Withdraw("g3")
		status(t, w, "")
		if len(w.hub.byGID) != 0 {
			t.Errorf("left behind: %v", w.hub.byGID)
		}
	})
}

func TestRepeatedSendIsNotDoubled(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		p := w.attend(hello("s", "a", 8, "s.a"))
		w.hub.Send(do("g", "s.a"))
		p.pingFor(11*time.Second, time.Second)
		if n := len(w.outcomes()); n != 1 {
			t.Fatalf("%d outcomes at the timeout", n)
		}
		w.hub.Send(do("g", "s.a")) // the same attempt: it is waited for anew
		if calls := p.take(); len(calls) != 1 {
			t.Errorf("the participant got %d calls, want 1", len(calls))
		}
		p.pingFor(11*time.Second, time.Second)
		if n := len(w.outcomes()); n != 1 {
			t.Errorf("%d outcomes at the second timeout, want 1", n)
		}
		status(t, w, "s: a 1/8, waiting 0, in flight 1")
	})
}

func TestConfigValidate(t *testing.T) {
	var none *Config
	if err := errors.Join(none.Validate(), (&Config{}).Validate()); err != nil {
		t.Error(err)
	}
	err := (&Config{Heartbeat: -1, MaxCapacity: -1}).Validate()
	if err == nil || !strings.Contains(err.Error(), "Heartbeat") || !strings.Contains(err.Error(), "MaxCapacity") {
		t.Errorf("error is %v", err)
	}
}

func TestAnswers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		p := w.attend(hello("s", "a", 1, "s.a"))
		for _, tc := range []struct {
			code amendsv1.OutcomeCode
			want txn.Replied
		}{
			{codeOK, txn.Replied{Outcome: txn.OK, Reply: []byte("body")}},
			{codeRefused, txn.Replied{Outcome: txn.Refused, Reply: []byte("body"), Message: "words"}}, // a pivot that stands
			{codeUnknown, txn.Replied{Outcome: txn.Unknown, Message: "words"}},
		} {
			w.hub.Send(do("g", "s.a"))
			o := answerTo(p.take()[0], tc.code, "")
			o.Reply, o.Message = []byte("body"), "words"
			p.answer(o)
			tc.want.Op, tc.want.Attempt = txn.Do, 1
			if got := w.outcomes(); len(got) != 1 || !sameOutcome(got[0], Outcome{GID: "g", Replied: tc.want}) {
				t.Errorf("outcomes are %v, want %v", got, tc.want)
			}
		}
	})
}
