package outbox

import (
	"context"
	"database/sql"
	"testing"
	"testing/synctest"
	"time"
)

// slow takes its time to measure, once for each measurement.
type slow struct {
	*sql.DB
	d    time.Duration
	n    int
	took time.Duration
}

func (s *slow) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	time.Sleep(s.d) // of virtual time
	s.n, s.took = s.n+1, s.took+s.d
	return s.DB.QueryContext(ctx, query, args...)
}

// TestMeasuringOwesLittle has one measurement that takes long and finds no room. A
// relay makes some: a writer finds it soon, not when the time is paid for.
func TestMeasuringOwesLittle(t *testing.T) {
	const promised = 2 * time.Second // by Outbox
	for _, d := range []time.Duration{100 * time.Millisecond, time.Second, 2 * time.Second, 10 * time.Second, time.Hour} {
		t.Run(d.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := newTestPartition(t)
				insert(t, p, 1, "k")
				r, q := newRoom(SQLite, &Config{MaxRows: 1}), &slow{DB: p.r.db}
				take := func() (why string) {
					t.Helper()
					why, err := r.take(t.Context(), q, claim{amount: amount{rows: 1}})
					if err != nil {
						t.Fatal(err)
					}
					return why
				}
				take() // the first one, which is free
				time.Sleep(measureEvery)
				q.d = d
				if why := take(); why == "" || q.n != 2 {
					t.Fatalf("%q after %d measurements, want none to be room at the second", why, q.n)
				}
				mustExec(t, p, `DELETE FROM amends_outbox_0`)
				q.d = 0
				began := time.Now()
				for take() != "" && time.Since(began) < time.Hour {
					time.Sleep(waitPoll)
				}
				if waited := time.Since(began); waited > promised+waitPoll {
					t.Errorf("there was room for %v before a writer found it, want at most %v", waited, promised)
				}
			})
		})
	}
}

// TestMeasuringTakesItsShare has a full outbox and an impatient writer: however long a
// measurement takes, up to what may be owed, all of them take a twentieth of the time,
// beside what was saved up.
func TestMeasuringTakesItsShare(t *testing.T) {
	for _, d := range []time.Duration{20 * time.Millisecond, measureOwed} {
		t.Run(d.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := newTestPartition(t)
				insert(t, p, 1, "k")
				r, q := newRoom(SQLite, &Config{MaxRows: 1}), &slow{DB: p.r.db, d: d}
				const length, fair, ahead, owed = 20 * time.Second, time.Second, time.Second, 100 * time.Millisecond
				for began := time.Now(); time.Since(began) < length; time.Sleep(waitPoll) {
					if why, err := r.take(t.Context(), q, claim{amount: amount{rows: 1}}); why == "" || err != nil {
						t.Fatalf("%q, %v, want it to be full", why, err)
					}
				}
				if most := fair + ahead + owed; q.took < fair/2 || q.took > most {
					t.Errorf("measured %d times, for %v in all, want about %v and at most %v", q.n, q.took, fair, most)
				}
			})
		})
	}
}
