package outbox

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"
)

// TestFollowWakesForWhatWasWritten: a transaction wakes the relays once it has
// committed messages, and no other does.
func TestFollowWakesForWhatWasWritten(t *testing.T) {
	db, err := sql.Open("sqlite", SQLiteDSN(filepath.Join(t.TempDir(), "db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := Migrate(t.Context(), db, SQLite); err != nil {
		t.Fatal(err)
	}
	o := New(SQLite, &Config{MaxRows: 1000})
	m := Message{Topic: "t", Key: "k", Body: []byte("b")}
	part := o.lane(&m)
	woken, leave := o.subscribe(part)
	defer leave()
	others, leaveOthers := o.subscribe((part + 1) % ordinary)
	defer leaveOthers()
	for _, tc := range []struct{ writes, commits bool }{{false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("writes %v, commits %v", tc.writes, tc.commits), func(t *testing.T) {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			ended := o.Follow(tx)
			if tc.writes {
				if err := o.Write(t.Context(), tx, m); err != nil {
					t.Fatal(err)
				}
			}
			end := tx.Rollback
			if tc.commits {
				end = tx.Commit
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if len(woken) > 0 {
				t.Error("woken before its end")
			}
			ended(tc.commits)
			if want := tc.writes && tc.commits; (len(woken) > 0) != want || len(others) > 0 {
				t.Errorf("woken %d, others %d; want it: %v", len(woken), len(others), want)
			}
			if o.room.open != (amount{}) || len(o.admitted) > 0 {
				t.Errorf("left behind: %+v, %d", o.room.open, len(o.admitted))
			}
		})
	}
}
