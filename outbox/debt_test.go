package outbox

import (
	"database/sql"
	"testing"
	"time"
)

// TestSettlementWaits: while single messages come, those that are published are deleted together, and whatever has the
// table read again meanwhile publishes none of them twice.
func TestSettlementWaits(t *testing.T) {
	p, log := newTestPartition(t)
	rows := func(want int64) {
		t.Helper()
		if b, err := Depth(t.Context(), p.r.db, SQLite); err != nil || b.Rows != want {
			t.Fatalf("depth %+v, %v; want %d", b, err, want)
		}
	}
	step := func(want outlook) {
		t.Helper()
		if got, err := p.step(t.Context()); err != nil || got != want {
			t.Fatalf("step: %v, %v; want %v", got, err, want)
		}
	}
	for id := int64(1); id <= 3; id++ {
		insert(t, p, id, "k")
		step(busy)
		p.owed.until = time.Now().Add(time.Minute) // however slow this machine is
		step(idle)
	}
	rows(3)
	if d := p.untilDue(time.Hour); d > p.lease.length/4 {
		t.Errorf("it would wait for %v", d)
	}
	p.w.sweep() // as when it is time for it: reads the table from its beginning
	step(idle)
	rows(0)
	insert(t, p, 4, "k")
	step(busy)
	p.owed.until = time.Now().Add(-time.Minute)
	step(idle)
	rows(0)
	if got := log.ids(); got != "1 2 3 4" {
		t.Errorf("published %s", got)
	}
}

// TestWakeSavesALook: after a page that a wake-up told of the table is not read once more, unless there may be more.
func TestWakeSavesALook(t *testing.T) {
	p, log := newTestPartition(t)
	p.told, p.r.cfg.Batch = true, 3
	step := func(want outlook) {
		t.Helper()
		if got, err := p.step(t.Context()); err != nil || got != want {
			t.Fatalf("step: %v, %v; want %v", got, err, want)
		}
	}
	insert(t, p, 1, "k")
	step(idle)
	for id := int64(2); id <= 5; id++ {
		insert(t, p, id, "k")
	}
	step(busy)
	step(idle)
	p.told = false
	insert(t, p, 6, "k")
	step(busy)
	step(idle)
	if got := log.ids(); got != "1 2 3 4 5 6" {
		t.Errorf("published %s", got)
	}
	p.told, p.w.cursor = true, 7
	if !p.caughtUp([]row{{id: 7}}) {
		t.Error("the page was the last one")
	}
	if p.caughtUp([]row{{id: 7}, {id: 8}}) {
		t.Error("the end of the page was not relayed")
	}
	if p.caughtUp([]row{{id: 7, msg: Message{Body: make([]byte, pageBytes)}}}) {
		t.Error("the page ended for its weight: there may be more")
	}
}

// TestSettlementNeedsNoLook: what is owed is settled while the partition waits, and the table is not read for that.
func TestSettlementNeedsNoLook(t *testing.T) {
	p, log := newTestPartition(t)
	p.told, p.lease.length = true, time.Hour
	insert(t, p, 1, "k")
	if got, err := p.step(t.Context()); err != nil || got != idle || p.owed.until.IsZero() {
		t.Fatalf("step: %v, %v, owed until %v", got, err, p.owed.until)
	}
	insert(t, p, 2, "k")
	wake, told := make(chan struct{}), make(chan bool)
	go func() { told <- p.await(t.Context(), wake, time.Hour) }()
	for n, deadline := 0, time.Now().Add(time.Minute); n != 1; { // of the two only what was not published stays
		if err := p.r.db.QueryRow(p.sql.count).Scan(&n); err != nil || time.Now().After(deadline) {
			t.Fatalf("%d rows, %v", n, err)
		}
	}
	wake <- struct{}{}
	if !<-told {
		t.Error("it was woken")
	}
	if got := log.ids(); got != "1" {
		t.Errorf("published %s while it waited", got)
	}
}

// TestPollGrows while nothing is found, and while who wakes the relay has all that comes.
func TestPollGrows(t *testing.T) {
	p, _ := newTestPartition(t)
	p.r.cfg.PollMin, p.r.cfg.PollMax = 5*time.Millisecond, 30*time.Millisecond
	for i, tc := range []struct {
		told, gap  bool
		poll, want int // milliseconds
	}{
		{false, false, 0, 5}, {false, false, 5, 10}, {false, false, 20, 30}, {false, true, 10, 20},
		{true, false, 0, 5}, {true, false, 20, 20}, {true, true, 20, 5},
	} {
		p.told, p.w.gaps = tc.told, nil
		if tc.gap {
			p.w.gaps = []gap{{from: 1, to: 1}}
		}
		if got := p.nextPoll(time.Duration(tc.poll) * time.Millisecond); got != time.Duration(tc.want)*time.Millisecond {
			t.Errorf("case %d: %v, want %d ms", i, got, tc.want)
		}
	}
}

// TestTxWakesWhatItWrote, and Wake all.
func TestTxWakesWhatItWrote(t *testing.T) {
	p, _ := newTestPartition(t)
	box := New(SQLite, &Config{Express: []string{"fast"}})
	var wakes [Partitions]<-chan struct{}
	for part := range wakes {
		var end func()
		wakes[part], end = box.subscribe(part)
		defer end()
	}
	one, fast := Message{Topic: "t", Key: "a"}, Message{Topic: "fast", Key: "a"}
	for _, tc := range []struct {
		name string
		do   func() error
		want lanes
	}{
		{"nothing", func() error { return nil }, 0},
		{"one", func() error { return writeIn(t, box, p.r.db, one) }, 1 << one.partition()},
		{"both", func() error { return writeIn(t, box, p.r.db, one, fast) }, 1<<one.partition() | 1<<express},
		{"all", func() error { box.Wake(); return nil }, allLanes},
	} {
		if err := tc.do(); err != nil {
			t.Fatal(err)
		}
		var got lanes
		for part, c := range wakes {
			select {
			case <-c:
				got |= 1 << part
			default:
			}
		}
		if got != tc.want {
			t.Errorf("%s: woken %b, want %b", tc.name, got, tc.want)
		}
	}
}

func writeIn(t *testing.T, box *Outbox, db *sql.DB, msgs ...Message) error {
	return box.Tx(t.Context(), db, func(tx *sql.Tx) error { return box.Write(t.Context(), tx, msgs...) })
}
