package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, b store.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	rows, err := collect(b.Writes)
	if err == nil && len(rows.messages) > 0 && s.outbox == nil {
		err = fmt.Errorf("%w: set Config.Outbox", store.ErrNoOutbox)
	}
	if err != nil {
		return fmt.Errorf("sqlstore: commit: %w", err)
	}
	if len(b.Writes) == 0 {
		s.turns.forget(b.Leases...) // it is only a fence: whatever is on its way, from wherever, takes effect before or never
	}
	if s.commitAtOnce(ctx, &b, &rows) {
		return nil
	}
	var taken map[int]epoch
	err = s.write(ctx, "commit", func(ctx context.Context, tx *sql.Tx) error {
		held, err := s.checkLeases(ctx, tx, b.Leases)
		if err != nil {
			return err
		}
		if taken, err = s.takeTurns(ctx, tx, b.Leases, held); err != nil {
			return err
		}
		return s.insert(ctx, tx, b.Writes, &rows)
	})
	if err == nil {
		s.turns.learn(taken)
	}
	return err
}

// insert writes a batch, one statement after the other.
func (s *Store) insert(ctx context.Context, tx *sql.Tx, writes []store.Write, rows *rows) error {
	err := s.transactions.exec(ctx, tx, len(writes), func(args []any, i int) []any {
		return bindRecord(args, &writes[i].Record, rows.json[i], rows.trails[i])
	})
	if err != nil {
		return err
	}
	err = s.events.exec(ctx, tx, len(rows.events), func(args []any, i int) []any {
		return bindEvent(args, rows.events[i])
	})
	if err != nil {
		return err
	}
	err = s.labels.exec(ctx, tx, len(rows.labels), func(args []any, i int) []any {
		l := &rows.labels[i]
		return append(args, l.name, l.value, s.d.bindCreated(l.of.CreatedAt), l.of.GID)
	})
	if err != nil || len(rows.messages) == 0 {
		return err
	}
	return s.outbox(ctx, tx, rows.messages)
}

// rows is a batch table by table.
type rows struct {
	json     []string       // labels of each write, as its row keeps them
	trails   []string       // events of each write, as its row keeps them
	events   []*store.Event // the others
	labels   []label
	messages []store.Message
}

type label struct {
	name, value string
	of          *store.Record
}

func collect(writes []store.Write) (rows, error) {
	r := rows{json: make([]string, len(writes)), trails: make([]string, len(writes))}
	var lines []byte
	for i := range writes {
		w := &writes[i]
		lines = lines[:0]
		for k := range w.Events {
			var kept bool
			if lines, kept = appendLine(lines, &w.Events[k]); !kept {
				r.events = append(r.events, &w.Events[k])
			}
		}
		r.trails[i] = string(lines)
		r.messages = append(r.messages, w.Messages...)
		if w.Record.Version > 1 || len(w.Record.Labels) == 0 {
			continue
		}
		text, err := json.Marshal(w.Record.Labels)
		if err != nil {
			return rows{}, err
		}
		r.json[i] = string(text)
		for _, name := range slices.Sorted(maps.Keys(w.Record.Labels)) {
			r.labels = append(r.labels, label{name, w.Record.Labels[name], &w.Record})
		}
	}
	return r, nil
}

func bindRecord(args []any, r *store.Record, labels, trail string) []any {
	definition := r.Definition
	if r.Version > 1 {
		definition = nil // is in the row already, and stays as it is
	}
	return append(args, r.GID, r.Shard, r.Namespace, r.Kind, r.Name, r.State,
		r.Paused, r.Stalled, r.WaitsFor, r.Version, r.Reason,
		r.CreatedAt.UnixMicro(), r.UpdatedAt.UnixMicro(), bindTime(r.Deadline), bindTime(r.NextAt), bindTime(r.FinishedAt),
		r.EventSeq, blob(r.EventHash), blob(r.Digest), labels, blob(r.Body), blob(definition), trail)
}

func bindEvent(args []any, ev *store.Event) []any {
	return append(args, ev.GID, ev.Seq, ev.At.UnixMicro(), ev.Type, blob(ev.Data), blob(ev.Prev), blob(ev.Hash))
}

// blob is b, but never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// bindTime is microseconds since 1970, NULL for the zero time.
func bindTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}
