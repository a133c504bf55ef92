package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// delay gives a row of the table a NotBefore.
func delay(t *testing.T, p *partition, id int64, until time.Time) {
	t.Helper()
	m := Message{NotBefore: until}
	if _, err := p.r.db.Exec(`UPDATE amends_outbox_0 SET headers = ? WHERE id = ?`, m.packed(), id); err != nil {
		t.Fatal(err)
	}
}

// until makes steps until cond holds.
func (p *partition) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) { // between two polls
		if time.Now().After(end) {
			t.Fatal("waited a minute for: ", what)
		}
		if _, err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeyFailsInASpillPass has a key whose first message fails for the first time
// while others go aside: what comes behind it may not go there before it.
func TestKeyFailsInASpillPass(t *testing.T) {
	p, log := newTestPartition(t)
	p.r.cfg.MaxBackoff = time.Millisecond
	down := true
	log.fail = func(m Message) bool { return down && m.ID == "10" }
	for id := int64(1); id < 10; id++ {
		insert(t, p, id, "")
	}
	insert(t, p, 10, "k")
	insert(t, p, 11, "k") // on the next page
	p.spill = true
	for range 2 {
		if _, err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		for key, h := range p.w.keys { // it ends when the test wants it
			p.w.due = time.Time{}
			p.w.hold(key, h.attempts, time.Now().Add(time.Hour))
		}
	}
	if p.w.cursor != 11 {
		t.Fatal("the pass is not at its end: ", p.w.cursor)
	}
	down, p.w.due = false, time.Now()
	for _, h := range p.w.keys {
		h.until = p.w.due
	}
	p.w.retry(time.Now())
	p.until(t, "both messages", func() bool { return len(log.sent) == 11 })
	if got := log.ids(); !strings.HasSuffix(got, " 10 11") {
		t.Errorf("published %s, want 10 before 11", got)
	}
}

// TestFailedBeforeDelayed has on one page a message that fails, a delayed one and
// a plain one of its key: all three stay in the table.
func TestFailedBeforeDelayed(t *testing.T) {
	p, log := newTestPartition(t)
	p.r.cfg.MaxBackoff = time.Millisecond
	down := true
	log.fail = func(m Message) bool { return down && m.ID == "1" }
	for id := int64(1); id <= 3; id++ {
		insert(t, p, id, "k")
	}
	delay(t, p, 2, time.Now())
	p.until(t, "the page", func() bool { return p.w.cursor == 3 })
	down = false
	p.until(t, "all messages", func() bool { return len(log.sent) == 3 })
	if got := log.ids(); got != "1 2 3" {
		t.Errorf("published %s, want 1 2 3", got)
	}
}

// TestAsideThoughTheCommitFailed has a settlement that was committed, although the
// answer got lost: what it put aside is not forgotten.
func TestAsideThoughTheCommitFailed(t *testing.T) {
	p, log := newTestPartition(t)
	p.aside = true
	p.drain(t)
	if p.aside {
		t.Fatal("rows aside in an empty database")
	}
	insert(t, p, 1, "k")
	delay(t, p, 1, time.Now().Add(time.Hour))
	page, err := p.read(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.sort(t.Context(), page)
	if err != nil || p.apply(t.Context(), b) {
		t.Fatal("not taken over: ", err)
	}
	err = InTx(t.Context(), p.r.db, nil, func(tx *sql.Tx) error { return p.settleIn(t.Context(), tx) })
	if err != nil {
		t.Fatal(err)
	}
	insert(t, p, 2, "k")
	p.drain(t)
	if got := log.ids(); got != "" {
		t.Errorf("published %s, want nothing: it is behind a delayed message", got)
	}
}

// TestOneMessageDoesNotStopTheLog has a log whose memory is full of rows that are
// out of the way, behind a single one that fails: that one goes aside.
func TestOneMessageDoesNotStopTheLog(t *testing.T) {
	p, _ := newTestPartition(t)
	p.log = &logReader{p: p}
	for id := int64(1); id <= int64(logPages*p.r.cfg.Batch); id++ {
		p.log.rows = append(p.log.rows, logRow{row: row{id: id}, gone: id > 1})
	}
	p.w.held[1] = "k"
	if err := p.log.fill(t.Context()); err != nil || !p.spill {
		t.Errorf("fill: %v, puts aside: %v: want it to make room", err, p.spill)
	}
}

// TestOrderWhateverHappens plays a partition at random: messages that fail, are
// delayed, poison or both; too many that are held; owners that change between two
// steps, and in the middle of one.
func TestOrderWhateverHappens(t *testing.T) {
	for _, seed := range []uint64{0, 2, 8, 18, 20, 21} { // most of them have found something
		for _, share := range []float64{DefaultShare, 1} { // 1: it reads ahead
			t.Run(fmt.Sprint(seed, " ", share), func(t *testing.T) { playPartition(t, rand.New(rand.NewPCG(seed, 1)), share) })
		}
	}
}

const playKeys = 4

func playPartition(t *testing.T, rnd *rand.Rand, share float64) {
	p, log := newTestPartition(t)
	p.r.pace.share = share
	p.r.cfg.MaxBackoff, p.r.cfg.BlockRetry, p.r.cfg.Batch = time.Millisecond, time.Millisecond, 3
	p.r.cfg.Poison = PoisonPolicy(rnd.IntN(3))
	healthy := false
	p.r.pub = PublishFunc(func(ctx context.Context, m Message) error {
		switch n := rnd.IntN(100); {
		case healthy || n >= 45:
			return log.publish(ctx, m)
		case n < 5:
			return Poison(errors.New("poison"))
		}
		return errors.New("down")
	})
	id := int64(0)
	for range 150 {
		switch n := rnd.IntN(20); {
		case n < 10:
			for range 1 + rnd.IntN(3) {
				id++
				insert(t, p, id, "k"+strconv.Itoa(rnd.IntN(playKeys)))
				if rnd.IntN(5) == 0 {
					delay(t, p, id, time.Now().Add(time.Duration(rnd.IntN(4))*time.Millisecond))
				}
			}
		case n == 10:
			p.spill = true
			p.w.rewind(0)
		case n == 11: // another owner
			*p = *p.successor()
		case n == 12:
			replayAll(t, p, rnd.IntN(2) == 0)
		}
		if _, err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	healthy = true
	p.until(t, "the end", func() bool {
		replayAll(t, p, false)
		b, err := Depth(t.Context(), p.r.db, SQLite)
		if err != nil {
			t.Fatal(err)
		}
		return b.Rows+b.Parked == 0
	})
	checkPlayed(t, p, log, id)
}

// successor is the partition as another relay takes it over.
func (p *partition) successor() *partition {
	return &partition{r: p.r, sql: p.sql, lease: p.lease, w: newWindow(time.Minute), swept: time.Now(), aside: true}
}

// replayAll replays parked messages: the first ones, or all.
func replayAll(t *testing.T, p *partition, first bool) {
	t.Helper()
	letters, err := DeadLetters(t.Context(), p.r.db, SQLite, DeadQuery{After: parkedNumbers})
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int64
	for _, l := range letters {
		if numbers = append(numbers, l.Number); first {
			break
		}
	}
	if err := Replay(t.Context(), p.r.db, SQLite, numbers...); err != nil {
		t.Fatal(err)
	}
}

// checkPlayed wants each message published or among the dead letters, and those of
// a key published in order, apart from what came again.
func checkPlayed(t *testing.T, p *partition, log *testLog, last int64) {
	t.Helper()
	there := map[string]bool{}
	letters, err := DeadLetters(t.Context(), p.r.db, SQLite, DeadQuery{Limit: MaxDeadLetters})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range letters {
		there[l.Message.ID] = true
	}
	before := map[string]int{}
	for i, id := range log.sent {
		n, err := strconv.Atoi(id)
		if err != nil {
			t.Fatal(err)
		}
		key := log.keys[i]
		if !there[id] && n < before[key] {
			t.Errorf("policy %v: key %s: %d was published before %d", p.r.cfg.Poison, key, before[key], n)
		}
		there[id], before[key] = true, max(before[key], n)
	}
	for id := int64(1); id <= last; id++ {
		if !there[fmt.Sprint(id)] {
			t.Errorf("policy %v: message %d is lost", p.r.cfg.Poison, id)
		}
	}
}
