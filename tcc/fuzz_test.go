package tcc_test

import (
	"bytes"
	"testing"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

func FuzzDecodeDefinition(f *testing.F) {
	f.Add([]byte(`{"name":"a","timeout":1}`))
	f.Add([]byte(`{"name":"","timeout":-1}`))
	f.Add([]byte(`{"name":"a","timeout":1e9}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := tcc.DecodeDefinition(data)
		if err != nil {
			return
		}
		once, err := d.Encode()
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		again, err := tcc.DecodeDefinition(once)
		if err != nil || *again != *d {
			t.Fatalf("not the same (%v): %+v, %+v", err, d, again)
		}
	})
}

// FuzzDecodeState: what decodes is a legal state, and can be finished.
func FuzzDecodeState(f *testing.F) {
	for seed := range uint64(40) {
		s := newSim(seed, false)
		for range seed {
			if err := s.tick(); err != nil {
				f.Fatal(err)
			}
		}
		data, err := s.state.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := tcc.DecodeState(simDef, data)
		if err != nil {
			return
		}
		once, err := s.Encode()
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		again, err := tcc.DecodeState(simDef, once)
		if err != nil {
			t.Fatalf("encoded, but cannot be decoded: %v", err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not the same (%v):\n%s\n%s", err, once, twice)
		}
		finish(t, simDef, s)
	})
}

// finish answers OK to everything, commits, and answers OK again.
func finish(t *testing.T, d *tcc.Definition, s tcc.State) tcc.State {
	t.Helper()
	answer := func() {
		for _, c := range s.Outstanding(d) {
			ev := txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.OK, Reply: []byte("r")}
			s = must(t, d, s, ev)
		}
	}
	answer()
	if s.Phase == txn.Running {
		s = must(t, d, s, tcc.Commit{})
	}
	answer()
	if !s.Phase.Finished() && s.Phase != txn.Parked {
		t.Fatalf("does not end: %s", describeState(s))
	}
	return s
}

func must(t *testing.T, d *tcc.Definition, s tcc.State, ev txn.Event) tcc.State {
	t.Helper()
	next, err := s.Advance(d, ev)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Check(d); err != nil {
		t.Fatal(err)
	}
	return next
}
