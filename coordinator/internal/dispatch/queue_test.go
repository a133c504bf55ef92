package dispatch

import (
	"slices"
	"testing"
)

// TestNewOnesWait: what was begun comes to its end before something new begins,
// over all actions that an instance offers.
func TestNewOnesWait(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		fresh := func(gid, action string) Call {
			c := do(gid, action)
			c.New = true
			return c
		}
		w.hub.Send(fresh("n1", "s.a"), fresh("n2", "s.b"), do("b1", "s.b"), fresh("n3", "s.a"), do("b2", "s.a"), fresh("gone", "s.a"))
		w.hub.Send(again(do("n1", "s.a"))) // it waits already, and keeps its place
		w.hub.Withdraw("gone")
		status(t, w, "s: waiting 5, in flight 0")
		p := w.attend(hello("s", "one", 1, "s.a", "s.b"))
		var got []string
		for range 5 {
			calls := p.take()
			got = append(got, gids(calls)...)
			p.ok(calls...)
		}
		if want := []string{"b1", "b2", "n1", "n2", "n3"}; !slices.Equal(got, want) {
			t.Errorf("calls came as %v, want %v", got, want)
		}
		status(t, w, "s: one 0/1, waiting 0, in flight 0")
		if len(w.hub.byGID) != 0 {
			t.Errorf("left behind: %v", w.hub.byGID)
		}
	})
}
