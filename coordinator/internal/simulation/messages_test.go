package simulation

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/sdk"
)

// logPartitions is how many the log has; a key is always in the same.
const logPartitions = 2

// messageLog is Kafka, as far as anybody here can tell: it keeps what it gets,
// in order, and the offsets of one group of consumers.
type messageLog struct {
	w *world

	mu      sync.Mutex
	entries [logPartitions][]outbox.Message
	offsets [logPartitions]int
	owner   [logPartitions]string // the program that consumes it
}

var errBroker = errors.New("simulation: the broker did not answer")

// publish is a relay's publisher.
func (l *messageLog) publish(p *process) outbox.PublishFunc {
	w := l.w
	return func(ctx context.Context, m outbox.Message) error {
		n := w.nth("publish", p.id, m.ID)
		at := func(prob float64, what string) bool { return w.rough(prob, what, p.id, m.ID, n) }
		if p.pass() != nil {
			return errDead
		}
		if err := sleep(ctx, w.journey("publish", p.id, m.ID, n)); err != nil {
			return err
		}
		if at(0.03, "publish lost") {
			w.fault("publish lost", p.id, "%s", m.ID)
			return errBroker
		}
		if p.pass() != nil {
			return errDead
		}
		l.mu.Lock()
		part := w.partitionOf(m.Key)
		l.entries[part] = append(l.entries[part], m)
		l.mu.Unlock()
		w.say(p.id, "publishes %s", m.ID)
		switch {
		case at(0.02, "crash after publish"):
			p.kill("after it published %s", m.ID)
			return errDead
		case at(0.03, "publish unheard"):
			w.fault("publish unheard", p.id, "%s", m.ID)
			return errBroker
		}
		return nil
	}
}

func (w *world) partitionOf(key string) int { return w.pick(logPartitions, "partition", key) }

// next is what a consumer finds at the group's offset, if the partition is its.
func (l *messageLog) next(consumer string, part int) (m outbox.Message, offset int, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	offset = l.offsets[part]
	if l.owner[part] != consumer || offset == len(l.entries[part]) {
		return m, offset, false
	}
	return l.entries[part][offset], offset, true
}

// commit moves the group's offset, for the partition's owner only.
func (l *messageLog) commit(consumer string, part, offset int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner[part] == consumer {
		l.offsets[part] = offset
	}
}

// rebalance gives a partition to another consumer.
func (l *messageLog) rebalance(part int, consumer string) {
	l.mu.Lock()
	l.owner[part] = consumer
	l.mu.Unlock()
	l.w.fault("rebalance", "log", "partition %d goes to %s", part, consumer)
}

func (l *messageLog) drained() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.entries {
		if l.offsets[i] < len(l.entries[i]) {
			return false
		}
	}
	return true
}

// keepRelay lives the lives of the relay of a database.
func (w *world) keepRelay(d *database) {
	w.keep("relay", func(p *process) {
		db := d.open(p)
		starter := sdk.NewStarter(sdk.NewClient(&wire{w: w, from: p}, &sdk.ClientConfig{Logger: quiet}))
		relay := outbox.NewRelay(outbox.New(outbox.SQLite, nil), db,
			outbox.Route(map[string]outbox.Publisher{sdk.StartTopic: starter}, w.log.publish(p)),
			&outbox.RelayConfig{Owner: p.id, Lease: 6 * time.Second, PollMin: time.Second, PollMax: 4 * time.Second,
				Sweep: 20 * time.Second, Keys: &redis{w: w, p: p}, Logger: quiet})
		if err := relay.Run(p.ctx); err != nil && !p.dead.Load() {
			w.violation("%s ended by itself: %v", p.id, err)
		}
		_ = db.Close() // of a dead process
	})
}

// redis is the relay's memory beside the database. It forgets.
type redis struct {
	w *world
	p *process
}

var errRedis = errors.New("simulation: redis did not answer")

func (r *redis) call() error {
	if r.p.pass() != nil {
		return errDead
	}
	if r.w.rough(0.05, "redis away", r.p.id, r.w.nth("redis", r.p.id)) {
		return errRedis
	}
	return nil
}

// MarkAcked implements outbox.Keys.
func (r *redis) MarkAcked(_ context.Context, _ int, ids []string) error {
	if err := r.call(); err != nil {
		return err
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	for _, id := range ids {
		r.w.keys[id] = true
	}
	return nil
}

// Acked implements outbox.Keys.
func (r *redis) Acked(_ context.Context, _ int, ids []string) (map[string]bool, error) {
	if err := r.call(); err != nil {
		return nil, err
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	marked := map[string]bool{}
	for _, id := range ids {
		if r.w.keys[id] {
			marked[id] = true
		}
	}
	return marked, nil
}

// Seen implements outbox.Keys.
func (r *redis) Seen(_ context.Context, keys []string) ([]bool, error) {
	return make([]bool, len(keys)), r.call()
}

// MarkSeen implements outbox.Keys.
func (r *redis) MarkSeen(context.Context, []string) error { return r.call() }

// keepConsumer lives the lives of one consumer: it handles what it finds behind
// the inbox, and may be at a message that another handles, too.
func (w *world) keepConsumer(name string, d *database) {
	w.keep(name, func(p *process) {
		db := d.open(p)
		in := inbox.New(outbox.SQLite, ledgerTopic)
		for n := 0; p.ctx.Err() == nil; n++ {
			for part := range logPartitions {
				for w.consume(p, db, in, part) {
				}
			}
			_ = sleep(p.ctx, w.between(300*time.Millisecond, time.Second, "poll", p.id, n)) // else it is over
		}
		_ = db.Close() // of a dead process
	})
}

// consume handles one message and reports whether to go on.
func (w *world) consume(p *process, db *sql.DB, in *inbox.Inbox, part int) bool {
	m, offset, found := w.log.next(p.name, part)
	if !found || p.pass() != nil {
		return false
	}
	n := w.nth("consume", p.id, part, offset)
	if sleep(p.ctx, w.journey("consume", p.id, part, offset, n)) != nil {
		return false
	}
	first, err := in.Once(p.ctx, db, m.ID, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(p.ctx, `INSERT INTO handled (account, msg) VALUES (?, ?)`, m.Key, m.ID); err != nil {
			return err
		}
		if w.rough(0.04, "consumer fails", p.id, part, offset, n) {
			return errUpset
		}
		return nil
	})
	if err != nil || p.pass() != nil {
		return false
	}
	w.say(p.id, "handled %s, first %v", m.ID, first)
	if w.rough(0.05, "offset lost", p.id, part, offset, n) {
		w.fault("offset lost", p.id, "%d of partition %d", offset, part)
		return false
	}
	w.log.commit(p.name, part, offset+1)
	return true
}
