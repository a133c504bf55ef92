package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// The machines' verbs are all on the wire, where there are two more.
func TestVerbs(t *testing.T) {
	machine := map[amendsv1.Verb]txn.Verb{}
	for _, v := range valid(txn.Verb.Valid) {
		on := wire.Verb(v)
		if _, twice := machine[on]; twice || on == 0 || on.Descriptor().Values().ByNumber(on.Number()) == nil {
			t.Errorf("%v becomes %v", v, on)
		}
		machine[on] = v
		if want := "VERB_" + strings.ToUpper(v.String()); !strings.HasPrefix(on.String(), want) {
			t.Errorf("%v becomes %v", v, on)
		}
	}
	for n := int32(-1); n < 100; n++ {
		v := amendsv1.Verb(n)
		got, known := wire.FromVerb(v)
		if want, is := machine[v]; got != want || known != is {
			t.Errorf("%v becomes %v, %t", v, got, known)
		}
		_, exists := amendsv1.Verb_name[n]
		if flag := v == amendsv1.Verb_VERB_PAUSE || v == amendsv1.Verb_VERB_RESUME; known != (exists && n != 0 && !flag) {
			t.Errorf("%v: known is %t", v, known)
		}
	}
	if wire.Verb(0) != 0 || wire.Verb(99) != 0 || wire.BulkState(txn.Parked) != 0 || wire.BulkState(0) != 0 || wire.Kind(wire.KindBulk) != 0 {
		t.Error("what is none of ours must become UNSPECIFIED")
	}
}

func TestKeys(t *testing.T) {
	seen := map[string]string{}
	for _, namespace := range []string{"", "a", "acme", "a-b"} {
		for _, id := range []string{"", "g", "acme", "a/b", "é"} {
			key, bulk := wire.Key(namespace, id), wire.BulkKey(namespace, id)
			if ns, gid := wire.Split(key); ns != namespace || gid != id {
				t.Errorf("%q splits into %q, %q", key, ns, gid)
			}
			if ns, got, ok := wire.SplitBulk(bulk); ns != namespace || got != id || !ok {
				t.Errorf("%q splits into %q, %q, %t", bulk, ns, got, ok)
			}
			if _, _, ok := wire.SplitBulk(key); ok {
				t.Errorf("%q is the key of a transaction", key)
			}
			for _, k := range []string{key, bulk} {
				if other := seen[k]; other != "" {
					t.Errorf("%q stands for %q and %q", k, other, namespace+" "+id)
				}
				seen[k] = namespace + " " + id
			}
		}
		if amendsv1.CheckNamespace(wire.BulkNamespace(namespace)) == nil {
			t.Error("a bulk's namespace is a caller's")
		}
	}
	if wire.Key("", "g") != "g" || wire.Key("acme", "g") != "acme\x00g" {
		t.Error("keys are kept by stores: they must not change")
	}
	longest := strings.Repeat("n", amendsv1.MaxNamespace)
	if n := len(wire.BulkKey(longest, strings.Repeat("x", txn.MaxName))); n > store.MaxGID {
		t.Errorf("the longest key has %d bytes, a store keeps %d", n, store.MaxGID)
	}
	if n := len(wire.BulkNamespace(longest)); n > store.MaxNamespace {
		t.Errorf("the longest namespace of a bulk has %d bytes, a store keeps %d", n, store.MaxNamespace)
	}
}

func TestCheckNamespace(t *testing.T) {
	for name, ok := range map[string]bool{
		"": true, "a": true, "acme-2": true, strings.Repeat("n", 62): true, strings.Repeat("n", 63): false,
		"A": false, "a_b": false, "2a": false, "-a": false, "a-": false, "a\n": false, "\x02a": false, "a\x00": false, "é": false,
	} {
		if err := amendsv1.CheckNamespace(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPlain(t *testing.T) {
	for _, namespace := range []string{"", "acme"} {
		key, bulk := wire.Key(namespace, "g"), wire.BulkKey(namespace, "b")
		text := fmt.Sprintf("%q, %s, %q, %s", key, key, bulk, bulk)
		if got := wire.Plain(namespace, text); got != `"g", g, "b", b` {
			t.Errorf("%q became %q", text, got)
		}
	}
	for _, text := range []string{"", "acme", `C:\x00`, "nothing to do"} {
		if got := wire.Plain("acme", text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestTransactionFields(t *testing.T) {
	rec := sagaRecord()
	rec.GID, rec.Stalled, rec.WaitsFor = wire.Key("acme", "A-17"), true, "cards\xff"
	rec.EventSeq, rec.EventHash = 7, []byte{1, 2}
	got := must(wire.Transaction(rec, false, true))
	if got.Gid != "A-17" || got.Namespace != "acme" || !got.Stalled || got.WaitsFor != `cards\xff` || got.EventSeq != 7 ||
		string(got.EventHash) != "\x01\x02" || got.Verbs != nil || got.Branches[0].Verbs != nil {
		t.Errorf("%v", got)
	}
	if ev := wire.Event(store.Event{GID: rec.GID}); ev.Gid != "A-17" {
		t.Errorf("%v", ev)
	}
	rec.Body = []byte(`{"own":`)
	if _, err := wire.Transaction(rec, false, true); !strings.Contains(err.Error(), `transaction "A-17"`) {
		t.Errorf("%v shows a key", err)
	}
}

// A branch's next attempt is told where the record's one time can only be its.
func TestBranchNextTime(t *testing.T) {
	retrying := sagaRecord()
	retrying.Paused, retrying.Stalled = false, true
	retrying.Body = wire.JoinBody(retrying.Body, []byte(`{"since":1}`))
	twoWait := retrying
	d := &saga.Definition{Name: "two", Steps: []saga.Step{{Name: "a", Action: "s.a"}, {Name: "b", Action: "s.b"}}}
	twoWait.Definition, twoWait.Body = must(d.Encode()), must(saga.New(d).Encode())
	for name, c := range map[string]struct {
		rec  store.Record
		edit func(*store.Record)
		want time.Time
	}{
		"waits":        {retrying, func(*store.Record) {}, retrying.NextAt},
		"under way":    {retrying, func(r *store.Record) { r.NextAt = r.UpdatedAt }, time.Time{}},
		"the deadline": {retrying, func(r *store.Record) { r.NextAt = r.Deadline }, time.Time{}},
		"may stall":    {retrying, func(r *store.Record) { r.Stalled = false }, time.Time{}},
		"paused":       {retrying, func(r *store.Record) { r.Paused = true }, time.Time{}},
		"nothing due":  {retrying, func(r *store.Record) { r.NextAt = time.Time{} }, time.Time{}},
		"one of two":   {twoWait, func(*store.Record) {}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			c.edit(&c.rec)
			for _, b := range must(wire.Transaction(c.rec, false, true)).Branches {
				var got time.Time
				if b.NextTime != nil {
					got = b.NextTime.AsTime()
				}
				if want := c.want; b.Name != "pay" && !got.IsZero() || b.Name == "pay" && !got.Equal(want) {
					t.Errorf("%s: %v, want %v", b.Name, got, want)
				}
			}
		})
	}
}

// What an operator did to a branch shows in its phase, and the reason for
// abandoning in the cause.
func TestOperatedPhases(t *testing.T) {
	d := &saga.Definition{Name: "order", Steps: []saga.Step{{Name: "a", Action: "s.a"}, {Name: "b", Action: "s.b", After: []int{0}}}}
	s := must(saga.New(d).Advance(d, txn.Skip{Branch: 0}))
	s = must(s.Advance(d, txn.Abandon{Reason: txn.Reason{Message: "closed by hand"}}))
	rec := store.Record{GID: "g", Kind: "saga", State: uint8(s.Phase), Reason: s.Cause.String(), Definition: must(d.Encode()), Body: must(s.Encode())}
	got := must(wire.Transaction(rec, false, true))
	if got.Branches[0].Phase != "SKIPPED" || got.State != amendsv1.State_STATE_ABANDONED || got.Cause.GetCode() != "ABANDONED" ||
		got.Cause.GetMessage() != "closed by hand" {
		t.Errorf("%v", got)
	}
	td := &tcc.Definition{Name: "trip", Timeout: time.Minute}
	ts := must(tcc.New(td).Advance(td, tcc.Try{Branch: tcc.Branch{Name: "seat", Action: "flights.seat"}}))
	ts = must(ts.Advance(td, txn.Fail{Branch: 0, Message: "by hand"}))
	ts = must(ts.Advance(td, txn.Skip{Branch: 0}))
	rec = store.Record{GID: "t", Kind: "tcc", State: uint8(ts.Phase), Definition: must(td.Encode()), Body: must(ts.Encode())}
	if got := must(wire.Transaction(rec, false, true)); got.Branches[0].Phase != "SKIPPED" {
		t.Errorf("%v", got)
	}
}
