package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	// lastOfWindow is the last of so many transactions behind one, and the first
	// behind those.
	lastOfWindow = `SELECT t.gid FROM amends_transactions t WHERE t.gid > ? ORDER BY t.gid LIMIT 1 OFFSET ?`

	staleTransactions = `SELECT t.gid, t.version, t.created_at, t.updated_at, t.reason, t.event_hash, t.digest, t.body, t.definition
 FROM amends_transactions t WHERE t.gid > ?%s AND (%s) ORDER BY t.gid`
	staleEvents = `SELECT e.gid, e.seq, e.at, e.data, e.prev, e.hash
 FROM amends_events e WHERE e.gid > ?%s AND (%s) ORDER BY e.gid, e.seq`
	// staleTrails are all: sealed events are not kept there.
	staleTrails = `SELECT t.gid, t.trail FROM amends_transactions t WHERE t.gid > ?%s AND t.trail <> '' ORDER BY t.gid`
	upToLast    = ` AND %s.gid <= ?`

	staleCell = `(LENGTH(%[1]s) > 0 AND SUBSTR(%[1]s, 1, %[2]d) <> ?)`
	// staleText is for a column of text, of which SUBSTR would count characters.
	staleText = `(%[1]s <> '' AND SUBSTR(HEX(%[1]s), 1, %[2]d) <> ?)`

	// A row that is written all the time would never be found as it was seen, but
	// its fixed fields are, whatever its version.
	rewriteFixed = `UPDATE amends_transactions SET digest = ?, definition = ? WHERE gid = ? AND created_at = ?`
	rewriteState = `UPDATE amends_transactions SET reason = ?, event_hash = ?, body = ?
 WHERE gid = ? AND version = ? AND updated_at = ?`
	rewriteEvent = `UPDATE amends_events SET data = ?, prev = ?, hash = ? WHERE gid = ? AND seq = ? AND at = ?`

	lockTrail    = `SELECT trail FROM amends_transactions t%s WHERE gid = ? AND trail <> ''%s`
	rewriteTrail = `UPDATE amends_transactions SET trail = ? WHERE gid = ?`
)

// Stale looks at up to limit transactions, in the order of their gids from
// behind after on, and returns which of them, and which of their events, have a
// field among Reason, EventHash, Digest, Body and Definition, or Data, Prev and
// Hash, that is not empty and does not begin with prefix. It fills in these,
// GID, Version, CreatedAt and UpdatedAt, or GID, Seq and At, and nothing else. last
// is where to go on; empty: that was the end. Package sealedstore uses it to change keys.
func (s *Store) Stale(ctx context.Context, prefix []byte, after string, limit int) (
	recs []store.Record, events []store.Event, last string, err error,
) {
	err = s.read(ctx, "stale", func(db *sql.DB) error {
		recs, events = nil, nil
		err := db.QueryRowContext(ctx, lastOfWindow, after, max(limit, 1)-1).Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			last, err = "", nil // the window is not full
		}
		if err != nil {
			return err
		}
		query, args := staleQuery(staleTransactions, "t", prefix, after, last, "t.event_hash", "t.digest", "t.body", "t.definition")
		err = eachRow(ctx, db, query, args, func(row *sql.Rows) error {
			var r store.Record
			var created, updated int64
			err := row.Scan(&r.GID, &r.Version, &created, &updated, &r.Reason, &r.EventHash, &r.Digest, &r.Body, &r.Definition)
			r.CreatedAt, r.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
			recs = append(recs, r)
			return err
		})
		if err != nil {
			return err
		}
		if events, err = plainEvents(ctx, db, after, last); err != nil {
			return err
		}
		query, args = staleQuery(staleEvents, "e", prefix, after, last, "e.data", "e.prev", "e.hash")
		return eachRow(ctx, db, query, args, func(row *sql.Rows) error {
			var ev store.Event
			var at int64
			err := row.Scan(&ev.GID, &ev.Seq, &at, &ev.Data, &ev.Prev, &ev.Hash)
			ev.At = time.UnixMicro(at).UTC()
			events = append(events, ev)
			return err
		})
	})
	if err != nil {
		return nil, nil, "", err
	}
	return recs, events, last, nil
}

// plainEvents returns the events that a window's transactions have in their own
// rows, but for what stands there and is none.
func plainEvents(ctx context.Context, db *sql.DB, after, last string) (events []store.Event, err error) {
	bound, args := window("t", after, last)
	err = eachRow(ctx, db, fmt.Sprintf(staleTrails, bound), args, func(row *sql.Rows) error {
		var gid string
		var trail []byte
		err := row.Scan(&gid, &trail)
		for _, ev := range readTrail(gid, trail) {
			if ev.Type != unreadable {
				events = append(events, ev)
			}
		}
		return err
	})
	return events, err
}

func window(table, after, last string) (bound string, args []any) {
	if last == "" {
		return ``, []any{after}
	}
	return fmt.Sprintf(upToLast, table), []any{after, last}
}

func staleQuery(query, table string, prefix []byte, after, last string, blobs ...string) (string, []any) {
	bound, args := window(table, after, last)
	var cells []string
	for _, column := range blobs {
		cells, args = append(cells, fmt.Sprintf(staleCell, column, len(prefix))), append(args, prefix)
	}
	if table == "t" {
		cells = append(cells, fmt.Sprintf(staleText, "t.reason", 2*len(prefix)))
		args = append(args, strings.ToUpper(hex.EncodeToString(prefix)))
	}
	return fmt.Sprintf(query, bound, strings.Join(cells, ` OR `)), args
}

func eachRow(ctx context.Context, db *sql.DB, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Rewrite replaces the fields that Stale returns, of rows that are still those
// that it returned, by version and time, and leaves the others alone; but the
// Digest and Definition of a transaction, which are fixed, whatever became of the
// rest of it. An event that was kept in its transaction's row becomes one of
// amends_events.
func (s *Store) Rewrite(ctx context.Context, recs []store.Record, events []store.Event) error {
	return s.write(ctx, "rewrite", func(ctx context.Context, tx *sql.Tx) error {
		for i := range recs {
			r := &recs[i]
			_, err := tx.ExecContext(ctx, rewriteFixed, blob(r.Digest), blob(r.Definition), r.GID, r.CreatedAt.UnixMicro())
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, rewriteState,
				r.Reason, blob(r.EventHash), blob(r.Body), r.GID, r.Version, r.UpdatedAt.UnixMicro())
			if err != nil {
				return err
			}
		}
		others, err := s.moveEvents(ctx, tx, events)
		if err != nil {
			return err
		}
		for i := range others {
			ev := &others[i]
			if _, err := tx.ExecContext(ctx, rewriteEvent, blob(ev.Data), blob(ev.Prev), blob(ev.Hash), ev.GID, ev.Seq, ev.At.UnixMicro()); err != nil {
				return err
			}
		}
		return nil
	})
}

// moveEvents takes those of the events that their transactions' rows have out of
// there, puts them into amends_events as they are given, and returns the others.
func (s *Store) moveEvents(ctx context.Context, tx *sql.Tx, events []store.Event) (others []store.Event, err error) {
	byGID := make(map[string][]store.Event)
	for i := range events {
		byGID[events[i].GID] = append(byGID[events[i].GID], events[i])
	}
	for _, gid := range slices.Sorted(maps.Keys(byGID)) {
		var trail []byte
		query := fmt.Sprintf(lockTrail, s.d.use(primaryKey), s.d.lock)
		err := tx.QueryRowContext(ctx, query, gid).Scan(&trail)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		rest, moved, left := split(gid, trail, byGID[gid])
		others = append(others, left...)
		if len(moved) == 0 {
			continue
		}
		if _, err := tx.ExecContext(ctx, rewriteTrail, string(rest), gid); err != nil {
			return nil, err
		}
		err = s.events.exec(ctx, tx, len(moved), func(args []any, i int) []any { return bindEvent(args, &moved[i]) })
		if err != nil {
			return nil, err
		}
	}
	return others, nil
}

// split parts a trail from those of the events that are in it.
func split(gid string, trail []byte, events []store.Event) (rest []byte, moved, left []store.Event) {
	left = events
	for text := range bytes.Lines(trail) {
		line, ok := readLine(gid, text)
		i := slices.IndexFunc(left, func(ev store.Event) bool { return ev.Seq == line.Seq && ev.At.Equal(line.At) })
		if !ok || i < 0 {
			rest = append(rest, text...)
			continue
		}
		ev := left[i]
		ev.Type = line.Type
		moved, left = append(moved, ev), slices.Delete(left, i, i+1)
	}
	return rest, moved, left
}
