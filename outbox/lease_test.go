package outbox

import (
	"database/sql"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// TestRenewedLeaseIsNotTaken: between a look at a lease that has run out and the
// statement that takes it, its owner may have renewed it, with the same epoch.
func TestRenewedLeaseIsNotTaken(t *testing.T) {
	for _, tc := range []struct {
		d    *Dialect
		open func(t *testing.T) *sql.DB
	}{
		{SQLite, func(t *testing.T) *sql.DB {
			p, _ := newTestPartition(t)
			return p.r.db
		}},
		{MySQL, func(t *testing.T) *sql.DB { return openMySQL(t, func(*mysql.Config) {}) }},
	} {
		t.Run(tc.d.name, func(t *testing.T) {
			db := tc.open(t)
			l := lease{d: tc.d, part: 1, length: time.Minute}
			if taken, err := l.acquire(t.Context(), db, "a"); err != nil || !taken {
				t.Fatalf("the first lease: %v, %v", taken, err)
			}
			take := func() int64 {
				t.Helper()
				n, err := execCount(t.Context(), db, tc.d.owner.acquire, "b", micros(l.length), l.part, l.epoch)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			if n := take(); n != 0 {
				t.Errorf("a lease that holds was taken by who saw it run out: %d rows", n)
			}
			if err := l.release(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			if n := take(); n != 1 {
				t.Errorf("a lease that was given back was not taken: %d rows", n)
			}
		})
	}
}
