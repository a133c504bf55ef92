package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func TestPace(t *testing.T) {
	now := time.Now()
	c := &pace{least: 0.1, share: 0.1}
	if d := c.rest(now, 100*time.Millisecond, time.Minute); d != 0 {
		t.Errorf("the share of the last second was not used, but it rests for %v", d)
	}
	if d := c.rest(now, 10*time.Millisecond, time.Minute); d != 100*time.Millisecond {
		t.Errorf("rests for %v after 10 ms at a share of 0.1, want 100 ms from the beginning of the work on", d)
	}
	if d := c.rest(now, 10*time.Millisecond, time.Minute); d != 200*time.Millisecond {
		t.Errorf("rests for %v, want what another partition did to count too: 200 ms", d)
	}
	if d := c.rest(now, time.Hour, time.Second); d != time.Second {
		t.Errorf("rests for %v, want no more than it may: 1 s", d)
	}
	for range 3 {
		c.adapt(now, 95, 100)
	}
	if c.unbounded() || c.share != 0.8 {
		t.Errorf("share %v after three seconds in which it fell behind, want 0.8", c.share)
	}
	if c.adapt(now, 200, 100); !c.unbounded() {
		t.Errorf("share %v, want no rests any more", c.share)
	}
	if d := c.rest(now, time.Hour, time.Second); d != 0 {
		t.Errorf("rests for %v, want nothing to be owed from before", d)
	}
	if c.adapt(now.Add(paceCalm), 0, 100); c.share != 1 {
		t.Errorf("share %v, want it kept for a while", c.share)
	}
	for range 100 {
		c.adapt(now.Add(paceCalm+1), 0, 100)
	}
	if c.share != c.least {
		t.Errorf("share %v, want the configured one again", c.share)
	}
}

// TestFallingBehind writes more between two looks than what left.
func TestFallingBehind(t *testing.T) {
	p, _ := newTestPartition(t)
	p.r.pace.share, p.r.pace.least = 0.1, 0.1
	look := func(rows int) {
		t.Helper()
		if p.load.since != (time.Time{}) {
			p.load.since = p.load.since.Add(-paceEvery)
		}
		if p.load.rows = rows; p.rest(t.Context()) != nil {
			t.Fatal("rest failed")
		}
	}
	insert(t, p, 1, "k")
	look(10)
	insert(t, p, 9, "k")
	if look(10); p.r.pace.share != 0.1 {
		t.Errorf("share %v: 8 of 10 is not falling behind", p.r.pace.share)
	}
	insert(t, p, 30, "k")
	if look(10); p.r.pace.share != 0.2 {
		t.Errorf("share %v, want it doubled: 21 came and 10 left", p.r.pace.share)
	}
	look(0) // no backlog
	insert(t, p, 100, "k")
	if look(10); p.r.pace.share != 0.2 {
		t.Errorf("share %v: what came while there was no backlog counts", p.r.pace.share)
	}
}

// TestLateCommitsBehindWhatIsReadAhead has rows appear in a gap while the page behind
// it has been read, and the one before it is not deleted yet.
func TestLateCommitsBehindWhatIsReadAhead(t *testing.T) {
	p, log := newTestPartition(t)
	p.r.pace.share = 1
	for id := int64(1); id <= 50; id++ {
		if id != 5 && id != 25 {
			insert(t, p, id, fmt.Sprint("k", id%7))
		}
	}
	log.fail = func(m Message) bool {
		switch m.ID {
		case "14": // of the page behind the gap
			insert(t, p, 5, "late")
			insert(t, p, 51, "late")
		case "44":
			insert(t, p, 25, "late, too")
			insert(t, p, 52, "late, too")
		}
		return false
	}
	p.drain(t)
	ids := strings.Fields(log.ids())
	at := map[string]int{}
	for i, id := range ids {
		at[id] = i
	}
	if len(ids) != 52 || len(at) != 52 || at["5"] > at["51"] || at["25"] > at["52"] {
		t.Errorf("published %v: want 1 to 52, once, 5 before 51 and 25 before 52", ids)
	}
	if b, err := Depth(t.Context(), p.r.db, SQLite); err != nil || b.Rows != 0 {
		t.Errorf("depth %+v, %v: rows were left in the table", b, err)
	}
}

// TestEndInABacklog stops a relay in the middle: what it has published it has deleted.
func TestEndInABacklog(t *testing.T) {
	const rows = 300
	p, log := newTestPartition(t)
	if err := p.lease.release(t.Context(), p.r.db); err != nil {
		t.Fatal(err)
	}
	box := New(SQLite, nil)
	err := box.Tx(t.Context(), p.r.db, func(tx *sql.Tx) error {
		return box.Write(t.Context(), tx, series("test", 0, rows, 20)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	log.fail = func(Message) bool {
		if len(log.sent) > rows/3 {
			once.Do(cancel)
		}
		return false
	}
	r := NewRelay(box, p.r.db, PublishFunc(log.publish),
		&RelayConfig{Share: 1, Batch: 10, Logger: slog.New(slog.DiscardHandler)})
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b, err := Depth(t.Context(), p.r.db, SQLite)
	if err != nil || b.Rows+int64(len(log.sent)) != rows || b.Rows == 0 {
		t.Errorf("depth %+v, %v, after %d of %d were published", b, err, len(log.sent), rows)
	}
}

func TestCheck(t *testing.T) {
	box := New(SQLite, &Config{MaxMessage: 100})
	for _, tc := range []struct {
		name string
		m    Message
		want string // in the error; empty: none
	}{
		{"fine", Message{Topic: "orders"}, ""},
		{"no topic", Message{}, "Topic"},
		{"no topic name", Message{Topic: "a b"}, "Topic"},
		{"key", Message{Topic: "t", Key: "a\x00b"}, "Key"},
		{"header", Message{Topic: "t", Headers: map[string]string{"": "x"}}, "Headers"},
		{"too large", Message{Topic: "t", Body: make([]byte, 101)}, "MaxMessage"},
	} {
		err := box.Check(tc.m)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if err := CheckTopic("a/b"); err == nil {
		t.Error("a/b passes for a topic")
	}
	if err := CheckTopic("a.b-c_1"); err != nil {
		t.Error(err)
	}
}
