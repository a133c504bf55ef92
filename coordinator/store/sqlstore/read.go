package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	dueTransactions = `SELECT ` + allColumns + ` FROM amends_transactions t%s WHERE `
	dueOrder        = ` ORDER BY t.shard, t.next_at, t.gid LIMIT ?`
	// eventsAfter is one statement, which sees the row and the rows at the same
	// time. What has no number is the trail in the transaction's row.
	eventsAfter = `SELECT 0, 0, '', trail, '', '' FROM amends_transactions WHERE gid = ? AND trail <> '' UNION ALL
 SELECT e.seq, e.at, e.type, e.data, e.prev, e.hash FROM (SELECT seq, at, type, data, prev, hash
 FROM amends_events WHERE gid = ? AND seq > ? ORDER BY seq LIMIT ?) e`

	// maxDueShards is of how many shards one statement asks what is due.
	maxDueShards = 1024
)

// Due implements store.Store.
func (s *Store) Due(ctx context.Context, q store.DueQuery) ([]store.Record, error) {
	var found []store.Record
	for _, part := range dueParts(q) {
		part.Limit = q.Limit - len(found)
		query, args := s.d.dueQuery(part)
		more, err := s.records(ctx, "due", true, query, args)
		if err != nil {
			return nil, err
		}
		if found = append(found, more...); len(found) >= q.Limit {
			break
		}
	}
	return found, nil
}

// dueParts cuts a query into those that an index serves from end to end: the
// rest of the shard that the page before ended in, then the shards behind it,
// so many at a time as a statement takes.
func dueParts(q store.DueQuery) []store.DueQuery {
	shards := slices.Sorted(slices.Values(q.Shards))
	var parts []store.DueQuery
	part := func(p store.DueQuery, shards []int) {
		p.Shards = shards
		parts = append(parts, p)
	}
	if q.AfterGID != "" {
		i, owned := slices.BinarySearch(shards, q.AfterShard)
		if shards = shards[i:]; owned {
			part(q, shards[:1])
			shards = shards[1:]
		}
		q.AfterGID = ""
	}
	for chunk := range slices.Chunk(shards, maxDueShards) {
		part(q, chunk)
	}
	return parts
}

func (d *dialect) dueQuery(q store.DueQuery) (string, []any) {
	c := conditions{d: d}
	c.add(`t.next_at < ?`, q.Until.UnixMicro())
	if !q.From.IsZero() {
		c.add(`t.next_at >= ?`, q.From.UnixMicro())
	}
	if q.AfterGID != "" {
		// The first bound is implied by the second, and lets the index begin there.
		after := q.AfterNext.UnixMicro()
		c.add(`t.next_at >= ?`, after)
		c.add(`(t.next_at > ? OR t.gid > ?)`, after, q.AfterGID)
	}
	shards := make([]any, len(q.Shards))
	for i, shard := range q.Shards {
		shards[i] = shard
	}
	c.add(in(`t.shard`, len(shards)), shards...)
	return fmt.Sprintf(dueTransactions, d.use(dueIndex)) + c.String() + dueOrder, append(c.args, max(q.Limit, 0))
}

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, gid string, after int64, limit int) (events []store.Event, err error) {
	err = s.read(ctx, "events", func(db *sql.DB) error {
		var trail, others []store.Event
		err := eachRow(ctx, db, eventsAfter, []any{gid, gid, max(after, 0), max(limit, 0)}, func(row *sql.Rows) error {
			ev := store.Event{GID: gid}
			var at int64
			if err := row.Scan(&ev.Seq, &at, &ev.Type, &ev.Data, &ev.Prev, &ev.Hash); err != nil {
				return err
			}
			if ev.Seq == 0 {
				trail = readTrail(gid, ev.Data)
				return nil
			}
			ev.At = time.UnixMicro(at).UTC()
			ev.Data, ev.Prev, ev.Hash = orNil(ev.Data), orNil(ev.Prev), orNil(ev.Hash)
			others = append(others, ev)
			return nil
		})
		events = merge(trail, others, after, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// records returns what a query of listColumns, or of allColumns, finds.
func (s *Store) records(ctx context.Context, op string, whole bool, query string, args []any) ([]store.Record, error) {
	var found []store.Record
	err := s.read(ctx, op, func(db *sql.DB) error {
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		found = nil
		for rows.Next() {
			var r store.Record
			if err := scanRecord(rows, &r, whole); err != nil {
				return err
			}
			found = append(found, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// scanRecord reads listColumns, or allColumns if whole, from a *sql.Row or
// *sql.Rows.
func scanRecord(row interface{ Scan(...any) error }, r *store.Record, whole bool) error {
	var created, updated int64
	var deadline, next, finished sql.NullInt64
	var labels []byte
	dest := []any{
		&r.GID, &r.Shard, &r.Namespace, &r.Kind, &r.Name, &r.State,
		&r.Paused, &r.Stalled, &r.WaitsFor, &r.Version, &r.Reason,
		&created, &updated, &deadline, &next, &finished, &r.EventSeq, &r.EventHash, &r.Digest, &labels,
	}
	if whole {
		dest = append(dest, &r.Body, &r.Definition)
	}
	if err := row.Scan(dest...); err != nil {
		return err
	}
	r.CreatedAt, r.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	r.Deadline, r.NextAt, r.FinishedAt = scanTime(deadline), scanTime(next), scanTime(finished)
	r.EventHash, r.Digest, r.Body, r.Definition = orNil(r.EventHash), orNil(r.Digest), orNil(r.Body), orNil(r.Definition)
	if len(labels) > 0 {
		if err := json.Unmarshal(labels, &r.Labels); err != nil {
			return fmt.Errorf("transaction %q: column labels: %w", r.GID, err)
		}
	}
	return nil
}

func scanTime(t sql.NullInt64) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return time.UnixMicro(t.Int64).UTC()
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
