package outboxtest

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"

	"github.com/amends-dev/amends/outbox"
)

// why is a legal request to act.
func why(id string) outbox.ActRequest {
	return outbox.ActRequest{Actor: "alice", Reason: "ticket 7", RequestID: id}
}

func (e *env) operator() *outbox.Operator { return e.box.Operator(e.db) }

func (e *env) blocked() []outbox.Blocked {
	e.Helper()
	b, err := e.operator().Blocked(e.ctx, outbox.Position{}, 0)
	e.must(err)
	return b
}

// published are the bodies that the log holds of a key.
func (e *env) published(key string) string {
	var got []string
	for _, m := range e.log.Messages() {
		if m.Key == key {
			got = append(got, string(m.Body))
		}
	}
	return strings.Join(got, " ")
}

// dead are the bodies of the dead letters of a key, by number.
func (e *env) dead(key string) string {
	e.Helper()
	dead, err := e.operator().DeadLetters(e.ctx, outbox.DeadQuery{Key: key, Limit: outbox.MaxDeadLetters})
	e.must(err)
	var got []string
	for _, d := range dead {
		got = append(got, string(d.Message.Body))
	}
	return strings.Join(got, " ")
}

func testStatus(e *env) {
	op := e.operator()
	s, err := op.Status(e.ctx)
	e.must(err)
	if s.Rows != 0 || s.Oldest != 0 || len(s.Topics) != 0 || s.Blocked != 0 || s.Partitions[0].Owner != "" {
		e.Errorf("of an empty outbox: %+v", s)
	}
	for i := range 20 {
		e.write(outbox.Message{Topic: "b", Key: fmt.Sprint("k", i)}, outbox.Message{Topic: "a", Key: fmt.Sprint("k", i)})
	}
	e.write(outbox.Message{Topic: "b"})
	e.until("an age", func() bool {
		s, err = op.Status(e.ctx)
		e.must(err)
		return s.Oldest > 0
	})
	if s.Rows != 41 || len(s.Topics) != 2 || s.Topics[0].Topic != "a" || s.Topics[0].Rows != 20 || s.Topics[1].Rows != 21 {
		e.Errorf("status %+v", s)
	}
	sum := int64(0)
	for _, p := range s.Partitions {
		sum += p.Rows
	}
	if sum != 41 {
		e.Errorf("the partitions hold %d", sum)
	}
	e.log.SetHook(func(_ context.Context, msgs []outbox.Message) []error { return failAll(msgs, errDown) })
	cfg := relayConfig()
	cfg.Owner = "relay of a test"
	r := e.relay(e.log, cfg)
	e.until("owners of all partitions", func() bool {
		s, err = op.Status(e.ctx)
		e.must(err)
		owned := 0
		for _, p := range s.Partitions {
			if strings.HasPrefix(p.Owner, "relay of a test/") && p.LeaseLeft > 0 && p.Epoch > 0 {
				owned++
			}
		}
		return owned == outbox.Partitions
	})
	r.stop()
	if s, err = op.Status(e.ctx); err != nil || s.Partitions[1].LeaseLeft != 0 {
		e.Errorf("after the relay's end: %+v, %v", s.Partitions, err)
	}
}

// testWaiting pages through what waits.
func testWaiting(e *env) {
	key := "a\xff'"
	for i := range 12 {
		e.write(message(key, i), message(fmt.Sprint("k", i), i), outbox.Message{Topic: "other", Body: []byte("12345")})
	}
	op := e.operator()
	all := map[string]bool{}
	q := outbox.WaitingQuery{Limit: 5}
	for {
		page, err := op.Waiting(e.ctx, q)
		e.must(err)
		for _, w := range page {
			all[w.Position.String()] = true
			if p, err := outbox.ParsePosition(w.Position.String()); err != nil || p != w.Position {
				e.Fatalf("position %v: %v, %v", w.Position, p, err)
			}
		}
		if len(page) < 5 {
			break
		}
		q.After = page[4].Position
	}
	if len(all) != 36 {
		e.Errorf("the pages hold %d messages, want 36", len(all))
	}
	byKey, err := op.Waiting(e.ctx, outbox.WaitingQuery{Key: key})
	e.must(err)
	if len(byKey) != 12 || byKey[0].Message.Key != key || byKey[0].Size != 1 || byKey[0].Position.Row >= byKey[11].Position.Row {
		e.Errorf("by key: %+v", byKey)
	}
	if k, err := op.KeyAt(e.ctx, byKey[3].Position); err != nil || k != key {
		e.Errorf("key at %v: %q, %v", byKey[3].Position, k, err)
	}
	byTopic, err := op.Waiting(e.ctx, outbox.WaitingQuery{Topic: "other"})
	e.must(err)
	if len(byTopic) != 12 || byTopic[0].Size != 5 || byTopic[0].Message.ID == "" || byTopic[0].Message.CreatedAt.IsZero() {
		e.Errorf("by topic: %+v", byTopic)
	}
	for _, bad := range []string{"", "1", "1-", "1-0", "1+0", "5-1", "-1-1", "1+", "1-+1", "01-1", "1-1x", "9-99999999999999999999"} {
		_, err := outbox.ParsePosition(bad)
		e.is(err, outbox.ErrNoMessage)
	}
	_, err = op.Waiting(e.ctx, outbox.WaitingQuery{Limit: 1001})
	e.is(err, outbox.ErrAct)
}

func testIdentity(e *env) {
	var wg sync.WaitGroup
	got := make([]string, 4)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = e.operator().Identity(e.ctx); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
	for _, g := range got {
		if g == "" || g != got[0] {
			e.Errorf("identities %q", got)
		}
	}
}

// testActRollsBack has the record's transaction fail: then nothing was done.
func testActRollsBack(e *env) {
	e.writeSeq("k", 1, 1)
	op := e.operator()
	e.must(e.exec("DROP TABLE amends_outbox_blocked"))
	e.must(e.exec("DROP TABLE amends_outbox_dead"))
	if _, err := op.Park(e.ctx, "k", why("x")); err == nil {
		e.Error("parked without a table for dead letters")
	}
	if acts, err := op.Acts(e.ctx, 0, 0); err != nil || len(acts) != 0 {
		e.Errorf("acts %+v, %v", acts, err)
	}
	var n int64
	for _, p := range []int{0, 1, 2, 3} {
		var here int64
		e.must(e.db.QueryRowContext(e.ctx, fmt.Sprintf("SELECT count(*) FROM amends_outbox_%d", p)).Scan(&here))
		n += here
	}
	if n != 1 {
		e.Errorf("%d rows wait, want 1", n)
	}
}

func (e *env) exec(query string) error {
	return outbox.InTx(e.ctx, e.db, nil, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(e.ctx, query)
		return err
	})
}
