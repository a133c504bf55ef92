package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"
)

// counted counts the statements that read rows.
type counted struct {
	*sql.DB
	n int
}

func (c *counted) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	c.n++
	return c.DB.QueryRowContext(ctx, query, args...)
}

// TestMeasuringReadsWhatChanged measures a table that grows and shrinks: each time
// it finds how many rows there are, and reads only a few segments of them.
func TestMeasuringReadsWhatChanged(t *testing.T) {
	p, _ := newTestPartition(t)
	q := &counted{DB: p.r.db}
	var g gauge
	measure := func(what string, rows, atMost int) {
		t.Helper()
		q.n = 0
		lv, next, err := g.measure(t.Context(), q, SQLite, 10, true)
		if err != nil {
			t.Fatal(err)
		}
		if g = next; int(lv.rows) != rows || lv.bytes != 10*lv.rows || q.n > atMost {
			t.Errorf("%s: %d rows of %d bytes with %d statements, want %d rows and at most %d statements",
				what, lv.rows, lv.bytes, q.n, rows, atMost)
		}
	}
	old := func() {
		for i := range g.tables[0] {
			g.tables[0][i].born = time.Now().Add(-2 * settleGrace)
		}
	}
	exec := func(query string) {
		t.Helper()
		if _, err := p.r.db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	const add = `WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d)
INSERT INTO amends_outbox_0 (id, msg_id, topic, msg_key, body, headers, idem_key, created_at)
SELECT i, x'31', 'test', x'61', x'31323334', x'', x'', 0 FROM n`
	const segments = 20
	exec(fmt.Sprintf(add, 1, segments*segmentRows))
	measure("at first", segments*segmentRows, segments+1)
	old()
	measure("again", segments*segmentRows, 4)
	exec(fmt.Sprintf(add, segments*segmentRows+100, segments*segmentRows+199))
	measure("more", segments*segmentRows+100, 4)
	exec(fmt.Sprintf(add, segments*segmentRows+1, segments*segmentRows+50)) // committed late, in front of others
	measure("late ones", segments*segmentRows+150, 4)
	exec(fmt.Sprintf("DELETE FROM amends_outbox_0 WHERE id <= %d", 5*segmentRows+7))
	measure("less", 15*segmentRows+150-7, 4)
	exec(fmt.Sprintf("DELETE FROM amends_outbox_0 WHERE id BETWEEN %d AND %d", 9*segmentRows+1, 9*segmentRows+10))
	for range segments {
		old()
		if _, g, _ = g.measure(t.Context(), q, SQLite, 10, true); q.n > 200 {
			t.Fatal("too many statements")
		}
	}
	measure("less in the middle", 15*segmentRows+150-17, 4)
	exec("DELETE FROM amends_outbox_0")
	measure("nothing", 0, 0)
	if lv, _, err := g.measure(t.Context(), q, SQLite, 1000, false); err != nil || q.n != 0 || lv.rows != 0 {
		t.Errorf("far below the bound: %+v, %v with %d statements, want none", lv, err, q.n)
	}
}

// TestDelayedKeysFillNoMemory has many keys wait: the partition keeps none of them
// in mind, and goes on.
func TestDelayedKeysFillNoMemory(t *testing.T) {
	p, log := newTestPartition(t)
	p.r.cfg.Batch, p.aside = 500, true
	const n = 8000 // in four partitions, of which the test has one
	var msgs []Message
	for i := range n {
		msgs = append(msgs, Message{ID: fmt.Sprint(i), Topic: "t", Key: fmt.Sprint("k", i), NotBefore: time.Now().Add(time.Hour)})
	}
	var free Message
	for i := 0; free.Key == "" || free.partition() != 0; i++ {
		free = Message{ID: "free", Topic: "t", Key: fmt.Sprint("free", i)}
	}
	err := p.r.o.Tx(t.Context(), p.r.db, func(tx *sql.Tx) error { return p.r.o.Write(t.Context(), tx, append(msgs, free)...) })
	if err != nil {
		t.Fatal(err)
	}
	p.drain(t)
	b, err := Depth(t.Context(), p.r.db, SQLite)
	if err != nil || b.Delayed < n/5 || b.Delayed > n/3 || log.ids() != "free" {
		t.Errorf("depth %+v, %v; published %q", b, err, log.ids())
	}
	if len(p.w.held)+len(p.w.keys)+len(p.noted)+len(p.pending.aside) != 0 {
		t.Errorf("in memory are %d rows, %d keys, %d notes", len(p.w.held), len(p.w.keys), len(p.noted))
	}
}
