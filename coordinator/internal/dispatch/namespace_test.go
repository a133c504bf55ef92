package dispatch

import (
	"fmt"
	"testing"

	"github.com/amends-dev/amends/coordinator/internal/wire"
)

// TestNamespacesAreApart: one service in two namespaces, and one gid in both.
func TestNamespacesAreApart(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		plain := w.attend(hello("s", "plain", 0, "s.a"))
		w.hub.Send(do(wire.Key("blue", "g"), "s.a"), do("g", "s.a"))
		calls := plain.take()
		if fmt.Sprint(gids(calls)) != "[g]" {
			t.Fatalf("the default namespace got %v, want only its own g", gids(calls))
		}
		if known, _ := w.hub.Offers("blue", "s.a"); known || len(w.hub.Services("blue")) != 1 || w.hub.Services("blue")[0].Waiting != 1 {
			t.Errorf("in blue the service is known: %t, %+v", known, w.hub.Services("blue"))
		}
		blue := w.attendIn("blue", hello("s", "blue", 0, "s.a"))
		theirs := blue.take()
		if fmt.Sprint(gids(theirs)) != "[g]" {
			t.Fatalf("blue got %v, want its own g", gids(theirs))
		}
		blue.ok(theirs...)
		if got := w.outcomes(); len(got) != 1 || got[0].GID != wire.Key("blue", "g") {
			t.Errorf("outcomes are %+v, want that of blue's g", got)
		}
		plain.ok(calls...)
		if got := w.outcomes(); len(got) != 1 || got[0].GID != "g" {
			t.Errorf("outcomes are %+v, want that of the default namespace's g", got)
		}
		if len(w.hub.Services("")) != 1 || len(w.hub.Services("green")) != 0 {
			t.Errorf("services: %+v, %+v", w.hub.Services(""), w.hub.Services("green"))
		}
	})
}
