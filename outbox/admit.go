package outbox

import (
	"context"
	"database/sql"
	"fmt"
)

// admission is a transaction of Outbox.Tx or Outbox.Follow.
type admission struct {
	waited bool   // there was room for it when it began
	taken  amount // what it has reserved
	unused bool   // of that, the message that was reserved when it began
	wrote  lanes  // where it has messages
}

// begin waits for room for a transaction if it has to. ended has to be called in
// the end.
func (o *Outbox) begin(ctx context.Context, db *sql.DB, waits bool) (*admission, error) {
	if waits {
		err := o.room.wait(ctx, db)
		return &admission{waited: true, unused: true, taken: amount{rows: 1}}, err
	}
	// Measured here if need be, as what a Write measures can be an old snapshot.
	_, err := o.room.take(ctx, db, claim{shared: true})
	return &admission{}, err
}

func (o *Outbox) setAdmission(tx *sql.Tx, a *admission) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a == nil {
		delete(o.admitted, tx)
	} else {
		o.admitted[tx] = a
	}
}

func (o *Outbox) admission(tx *sql.Tx) *admission {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.admitted[tx]
}

// admit takes room for messages that are written in tx and answers which to
// store. Sheddable ones may be left out; any other without room is an error.
func (o *Outbox) admit(ctx context.Context, tx *sql.Tx, msgs []Message) ([]Message, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	a := o.admission(tx)
	why, err := o.takeFor(ctx, tx, a, msgs, false)
	if err != nil {
		return nil, err
	}
	if why == "" {
		return msgs, nil
	}
	kept := make([]Message, 0, len(msgs))
	dropped := map[string]uint64{}
	for _, m := range msgs {
		switch p := o.policy(m.Topic); {
		case p == Shed && m.Sheddable:
			dropped[m.Topic]++
		case p == Block && a != nil && a.waited:
			kept = append(kept, m)
		default:
			o.room.noteRejected(len(msgs))
			return nil, fmt.Errorf("%w: topic %q (policy %v): %s: see that a relay publishes them, or raise the bound",
				ErrOutboxFull, m.Topic, p, why)
		}
	}
	if _, err := o.takeFor(ctx, tx, a, kept, true); err != nil {
		return nil, err
	}
	o.room.noteShed(o.log, dropped, why)
	return kept, nil
}

// takeFor takes room for messages; a is nil for a transaction that is not of Tx.
func (o *Outbox) takeFor(ctx context.Context, tx *sql.Tx, a *admission, msgs []Message, force bool) (why string, err error) {
	c := claim{amount: amount{rows: int64(len(msgs))}, force: force, open: a != nil}
	for i := range msgs {
		c.bytes += int64(msgs[i].weight())
	}
	if a == nil {
		return o.room.take(ctx, tx, c)
	}
	c.own = a.taken
	if a.unused {
		c.rows, c.own.rows = max(c.rows-1, 0), 0
	}
	if why, err = o.room.take(ctx, tx, c); why == "" && err == nil {
		a.taken, a.unused = a.taken.plus(c.amount), a.unused && len(msgs) == 0
	}
	return why, err
}

// weight is about what the message weighs in its table, in bytes.
func (m *Message) weight() int {
	const perHeader, perDelay = 2, 40
	n := m.size() + perHeader*len(m.Headers)
	if !m.NotBefore.IsZero() {
		n += perDelay
	}
	return n
}
