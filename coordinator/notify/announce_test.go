package notify_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// TestLifecycle: each transition announces what became of the transaction, and
// nothing else does; the same transition announces the same.
func TestLifecycle(t *testing.T) {
	s := newShelf(t, "one")
	l := notify.Lifecycle{Topic: "life"}
	verb := map[string]string{"actor": "olga", "reason": "the bank is back"}
	var got []string
	tell := func(rec store.Record, events []store.Event) {
		t.Helper()
		msgs := l.Announce(rec, events)
		for i, m := range msgs {
			if again := l.Announce(rec, events)[i]; again.ID != m.ID || string(again.Body) != string(m.Body) {
				t.Errorf("announced again: %+v, before %+v", again, m)
			}
			var e notify.Event
			if err := json.Unmarshal(m.Body, &e); err != nil {
				t.Error(err)
			}
			if m.Topic != "life" || m.Key != "g" || m.Headers["ce_subject"] != "g" || e.GID != "g" {
				t.Errorf("message %+v", m)
			}
			word := m.Headers["ce_type"][len("dev.amends.transaction."):]
			if !strings.HasPrefix(m.ID, "amends/g/") || !strings.HasSuffix(m.ID, "/"+word) {
				t.Errorf("id %q of a %s", m.ID, word)
			}
			got = append(got, word+" "+e.Actor+e.Verb+e.State)
		}
	}
	refused := map[string]string{"branch": "debit"}
	tell(s.at("g", txn.Running, "started", nil, nil))
	tell(s.stall("g"))
	tell(s.at("g", txn.Running, "retry", verb, nil))
	tell(s.at("g", txn.Parked, "replied", refused, nil))
	tell(s.at("g", txn.Parked, "abort", nil, nil)) // a deadline's: it was parked before
	tell(s.at("g", txn.Parked, "pause", verb, nil))
	tell(s.at("g", txn.RollingBack, "retry", verb, nil))
	tell(s.at("g", txn.RolledBack, "replied", nil, nil))
	want := []string{
		"stalled RUNNING", "operated olgaretryRUNNING", "parked PARKED", "operated olgapausePARKED",
		"operated olgaretryROLLING_BACK", "rolled_back ROLLED_BACK",
	}
	if !slices.Equal(got, want) {
		t.Errorf("announced\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLifecycleGathered: one commit of several transitions announces all of
// them, in their order.
func TestLifecycleGathered(t *testing.T) {
	s := newShelf(t, "one")
	_, first := s.stall("g")
	_, second := s.at("g", txn.Running, "abandon", map[string]string{"actor": "olga", "reason": "lost cause"}, nil)
	rec, third := s.at("g", txn.Abandoned, "replied", nil, nil)
	var got []string
	for _, m := range (notify.Lifecycle{}).Announce(rec, slices.Concat(first, second, third)) {
		got = append(got, m.Topic+" "+m.ID)
	}
	want := []string{
		notify.DefaultTopic + " amends/g/1/stalled", notify.DefaultTopic + " amends/g/2/operated",
		notify.DefaultTopic + " amends/g/3/abandoned",
	}
	if !slices.Equal(got, want) {
		t.Errorf("announced %q, want %q", got, want)
	}
	rec.Kind = "bulk"
	if msgs := (notify.Lifecycle{}).Announce(rec, first); msgs != nil {
		t.Errorf("a bulk announces %v", msgs)
	}
}
