package cloudevents_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/cloudevents"
)

// TestHandler: an event is handled once, also when its producer wrote it twice and
// the consumer knows only its place in the log; one that fails is handled again.
func TestHandler(t *testing.T) {
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "a.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	var handled []string
	var fail error
	handler := cloudevents.Handler(outbox.SQLite, "g", func(_ context.Context, _ *sql.Tx, e cloudevents.Event) error {
		handled = append(handled, e.Source+" "+e.ID)
		return fail
	})
	foreign := func(place, source, id string) outbox.Message {
		return outbox.Message{ID: place, Topic: "t", Headers: map[string]string{"ce_specversion": "1.0", "ce_id": id, "ce_source": source, "ce_type": "x"}}
	}
	run := func(m outbox.Message) error {
		return outbox.InTx(t.Context(), db, nil, func(tx *sql.Tx) error { return handler(t.Context(), tx, m) })
	}
	fail = errors.New("not now")
	if err := run(foreign("t/0/0", "a", "1")); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	fail = nil
	for _, m := range []outbox.Message{
		foreign("t/0/0", "a", "1"), // again, after the failure
		foreign("t/0/1", "a", "1"), // written twice
		foreign("t/0/2", "b", "1"), // another source: another event
		foreign("1", "a", "1"),     // written by Amends: the consumer has claimed it
	} {
		if err := run(m); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"a 1", "a 1", "b 1", "a 1"}
	if len(handled) != len(want) {
		t.Fatalf("handled %q, want %q", handled, want)
	}
	for i := range want {
		if handled[i] != want[i] {
			t.Errorf("handled %q, want %q", handled, want)
		}
	}
	if err := run(outbox.Message{ID: "1", Topic: "t"}); !errors.Is(err, outbox.ErrPoison) || !errors.Is(err, cloudevents.ErrNotEvent) {
		t.Errorf("no event: %v", err)
	}
}
