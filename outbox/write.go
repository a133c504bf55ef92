package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

const (
	insertRows  = 100     // most messages of one statement
	insertBytes = 1 << 20 // a statement ends early when its messages weigh that much
)

// Write stores messages in tx: they are published after it commits and never
// otherwise. It changes nothing when it returns ErrMessage or ErrOutboxFull.
// After the commit call Wake, or use Tx, which does it; without, the relay finds
// the rows with its next poll.
func (o *Outbox) Write(ctx context.Context, tx *sql.Tx, msgs ...Message) error {
	if o.err != nil {
		return o.err
	}
	ready, err := o.prepare(msgs)
	if err != nil {
		return err
	}
	traced(ctx, ready)
	kept, err := o.admit(ctx, tx, ready)
	if err != nil {
		return err
	}
	var parts [Partitions][]Message
	var wrote lanes
	for _, m := range kept {
		p := o.lane(&m)
		parts[p] = append(parts[p], m)
		wrote |= 1 << p
	}
	if a := o.admission(tx); a != nil {
		a.wrote |= wrote
	}
	for p, msgs := range parts {
		for len(msgs) > 0 {
			n := statementSize(msgs)
			if err := o.insert(ctx, tx, p, msgs[:n]); err != nil {
				return fmt.Errorf("outbox: write messages %q to %q: %w", msgs[0].ID, msgs[n-1].ID, err)
			}
			msgs = msgs[n:]
		}
	}
	return nil
}

// prepare copies and validates the messages and gives them ids.
func (o *Outbox) prepare(msgs []Message) ([]Message, error) {
	ready := make([]Message, len(msgs))
	for i, m := range msgs {
		if m.ID == "" {
			id, err := newID()
			if err != nil {
				return nil, err
			}
			m.ID = id
		}
		if err := m.validate(o.cfg.MaxMessage); err != nil {
			return nil, fmt.Errorf("%w: message %d of %d: %w", ErrMessage, i+1, len(msgs), err)
		}
		ready[i] = m
	}
	return ready, nil
}

// Check tells whether Write would refuse the message for what it is: the error is
// ErrMessage with every mistake in it, or ErrConfig. It writes nothing, and says
// nothing about whether there is room.
func (o *Outbox) Check(m Message) error {
	if o.err != nil {
		return o.err
	}
	if err := m.validate(o.cfg.MaxMessage); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return nil
}

// statementSize is how many of the first messages go into one statement: one at
// least, and then so many that it stays far below what servers take.
func statementSize(msgs []Message) int {
	size := msgs[0].size()
	n := 1
	for n < len(msgs) && n < insertRows {
		if size += msgs[n].size(); size > insertBytes {
			break
		}
		n++
	}
	return n
}

// insert stores messages of one partition in one statement, in their order.
func (o *Outbox) insert(ctx context.Context, tx *sql.Tx, part int, msgs []Message) error {
	stmts := &o.d.part[part]
	var query strings.Builder
	args := make([]any, 0, 6*len(msgs))
	for i, m := range msgs {
		if i == 0 {
			query.WriteString(stmts.insert)
		} else {
			query.WriteString(", ")
		}
		query.WriteString(stmts.row)
		args = append(args, []byte(m.ID), m.Topic, []byte(m.Key), notNil(m.Body), m.packed(), []byte(m.IdempotencyKey))
	}
	_, err := tx.ExecContext(ctx, query.String(), args...)
	return err
}
