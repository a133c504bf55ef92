package saga_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/amends-dev/amends/saga"
)

func FuzzDecodeDefinition(f *testing.F) {
	f.Add([]byte(`{"name":"a","steps":[{"name":"x","action":"s.a"}]}`))
	f.Add([]byte(`{"name":"a","steps":[{"name":"x","action":"s.a","after":[0]}],"timeout":-1}`))
	f.Add([]byte(`{"name":"a","steps":[{"name":"x","action":"s.a","kind":"pivot","retry":{"factor":1e300}}]}`))
	for seed := range uint64(10) {
		data, err := randomDefinition(rand.New(rand.NewPCG(seed, 1))).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := saga.DecodeDefinition(data)
		if err != nil {
			return
		}
		once, err := d.Encode()
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		again, err := saga.DecodeDefinition(once)
		if err != nil {
			t.Fatalf("encoded, but cannot be decoded: %v", err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not the same (%v):\n%s\n%s", err, once, twice)
		}
		s := saga.New(d)
		if err := s.Check(d); err != nil {
			t.Fatal(err)
		}
		s.Outstanding(d)
	})
}

// FuzzDecodeState: what decodes is a legal state, and can be finished.
func FuzzDecodeState(f *testing.F) {
	for seed := range uint64(40) {
		s := newSim(seed, false)
		s.state = saga.New(s.def)
		for range seed {
			if len(s.state.Outstanding(s.def)) == 0 {
				break
			}
			if err := s.tick(); err != nil {
				f.Fatal(err)
			}
		}
		def, err := s.def.Encode()
		if err != nil {
			f.Fatal(err)
		}
		state, err := s.state.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(def, state)
	}
	f.Fuzz(func(t *testing.T, def, state []byte) {
		d, err := saga.DecodeDefinition(def)
		if err != nil {
			return
		}
		s, err := saga.DecodeState(d, state)
		if err != nil {
			return
		}
		once, err := s.Encode()
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		again, err := saga.DecodeState(d, once)
		if err != nil {
			t.Fatalf("encoded, but cannot be decoded: %v", err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not the same (%v):\n%s\n%s", err, once, twice)
		}
		finish(t, d, s)
	})
}
