package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// TestLateCommits plays a database whose ids become visible out of order, which
// SQLite's do not: rows are inserted with the ids that the test wants.
func TestLateCommits(t *testing.T) {
	p, log := newTestPartition(t)
	insert(t, p, 1, "a")
	insert(t, p, 4, "b")
	p.drain(t)
	insert(t, p, 5, "c") // behind the cursor
	p.drain(t)
	insert(t, p, 3, "late")
	insert(t, p, 6, "late") // written, and so visible, after 3
	p.drain(t)
	if got := log.ids(); got != "1 4 5 3 6" {
		t.Errorf("published %s, want 1 4 5 3 6", got)
	}
	if n := p.r.Stats().LateArrivals; n != 1 {
		t.Errorf("%d late arrivals, want 1", n)
	}
	p.w.forget(time.Now().Add(time.Hour))
	insert(t, p, 2, "very late") // after the grace time: left to the sweep
	p.drain(t)
	p.w.sweep()
	p.drain(t)
	if got := log.ids(); got != "1 4 5 3 6 2" {
		t.Errorf("published %s, want 2 at the end", got)
	}
}

// TestManyHeldRows has more rows of a blocked key than a page holds: other keys
// behind them still get through.
func TestManyHeldRows(t *testing.T) {
	p, log := newTestPartition(t)
	log.fail = func(m Message) bool { return m.Key == "stuck" }
	for id := int64(1); id <= 30; id++ {
		insert(t, p, id, "stuck")
	}
	insert(t, p, 31, "free")
	for range 20 {
		if _, err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := log.ids(); got != "31" {
		t.Errorf("published %s, want 31", got)
	}
}

// TestUnreadableRow has headers that cannot be decoded: a dead letter.
func TestUnreadableRow(t *testing.T) {
	p, log := newTestPartition(t)
	insert(t, p, 1, "k")
	if _, err := p.r.db.Exec(`UPDATE amends_outbox_0 SET headers = x'ff'`); err != nil {
		t.Fatal(err)
	}
	insert(t, p, 2, "k")
	p.drain(t)
	dead, err := DeadLetters(t.Context(), p.r.db, SQLite, DeadQuery{})
	if err != nil || len(dead) != 1 || log.ids() != "2" {
		t.Errorf("dead %+v, %v; published %s", dead, err, log.ids())
	}
}

// TestDeleteSurvivesErrors fails the delete of what was published: it is not
// published again, and deleted later. At a share of 1 the first page is deleted while
// the second one is published, and both have to be deleted after that.
func TestDeleteSurvivesErrors(t *testing.T) {
	for _, tc := range []struct {
		share float64
		rows  int64 // until the delete fails
	}{{DefaultShare, 1}, {1, 20}} { // 20: of two pages
		t.Run(fmt.Sprint(tc.share), func(t *testing.T) {
			p, log := newTestPartition(t)
			p.r.pace.share = tc.share
			var want []string
			for id := int64(1); id <= tc.rows; id++ {
				insert(t, p, id, "k")
				want = append(want, fmt.Sprint(id))
			}
			mustExec(t, p, `CREATE TRIGGER fails BEFORE DELETE ON amends_outbox_0 BEGIN SELECT RAISE(ABORT, 'on purpose'); END`)
			var err error
			for end := 10; err == nil && end > 0; end-- {
				if _, err = p.step(t.Context()); len(log.ids()) == len(strings.Join(want, " ")) {
					p.owed.until = time.Time{}
				}
			}
			if err == nil || !strings.Contains(err.Error(), "delete published rows") {
				t.Fatalf("the step answers %v, want the failed delete", err)
			}
			if got := log.ids(); got != strings.Join(want, " ") {
				t.Fatalf("published %s before the delete failed, want %v", got, want)
			}
			mustExec(t, p, `DROP TRIGGER fails`)
			p.drain(t)
			if got := log.ids(); got != strings.Join(want, " ") {
				t.Errorf("published %s, want %v once", got, want)
			}
			if b, err := Depth(t.Context(), p.r.db, SQLite); err != nil || b.Rows != 0 {
				t.Errorf("depth %+v, %v: rows were left in the table", b, err)
			}
		})
	}
}

func mustExec(t *testing.T, p *partition, query string) {
	t.Helper()
	if _, err := p.r.db.Exec(query); err != nil {
		t.Fatal(err)
	}
}

type testLog struct {
	mu   sync.Mutex
	sent []string // ids
	keys []string // of them
	fail func(m Message) bool
}

func (l *testLog) publish(_ context.Context, m Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil && l.fail(m) {
		return fmt.Errorf("not %s", m.ID)
	}
	l.sent, l.keys = append(l.sent, m.ID), append(l.keys, m.Key)
	return nil
}

func (l *testLog) ids() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := fmt.Sprint(l.sent)
	return s[1 : len(s)-1]
}

// newTestPartition owns partition 0 of a new database; the test makes its steps.
func newTestPartition(t *testing.T) (*partition, *testLog) {
	db, err := sql.Open("sqlite", SQLiteDSN(filepath.Join(t.TempDir(), "app.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := Migrate(t.Context(), db, SQLite); err != nil {
		t.Fatal(err)
	}
	log := &testLog{}
	r := NewRelay(New(SQLite, nil), db, PublishFunc(log.publish),
		&RelayConfig{Batch: 10, Lease: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	p := &partition{r: r, sql: &SQLite.part[0], w: newWindow(time.Minute), swept: time.Now(),
		lease: lease{d: SQLite, length: time.Minute}}
	if ok, err := p.lease.acquire(t.Context(), db, "test"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	return p, log
}

func (p *partition) drain(t *testing.T) {
	t.Helper()
	for range 100 {
		next, err := p.step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if next == idle && len(p.pending.remove) == 0 {
			return
		}
		if next == idle {
			p.owed.until = time.Now() // as if the time had come
		}
	}
	t.Fatal("the partition does not become idle")
}

func insert(t *testing.T, p *partition, id int64, key string) {
	t.Helper()
	_, err := p.r.db.Exec(`INSERT INTO amends_outbox_0 (id, msg_id, topic, msg_key, body, headers, idem_key, created_at)
VALUES (?, ?, 'test', ?, x'', x'', x'', 0)`, id, []byte(fmt.Sprint(id)), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
}
