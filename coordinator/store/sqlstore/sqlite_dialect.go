package sqlstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations
var migrations embed.FS

const sqliteKeepNewer = ` ON CONFLICT (gid) DO UPDATE SET
 state = excluded.state, paused = excluded.paused, stalled = excluded.stalled, waits_for = excluded.waits_for,
 version = excluded.version, reason = excluded.reason,
 updated_at = excluded.updated_at, deadline = excluded.deadline, next_at = excluded.next_at,
 finished_at = excluded.finished_at, event_seq = excluded.event_seq, event_hash = excluded.event_hash,
 body = excluded.body, trail = amends_transactions.trail || excluded.trail
 WHERE excluded.version > amends_transactions.version`

const sqliteKeepMember = ` ON CONFLICT (name) DO UPDATE SET address = excluded.address, version = excluded.version,
 draining = excluded.draining, started_at = excluded.started_at, expires_at = excluded.expires_at`

func sqliteDialect() (*dialect, error) {
	files, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	return &dialect{
		name:       "sqlite",
		migrations: files,
		now:        `CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000`,
		keepNewer:  sqliteKeepNewer,
		elseKeep:   func(string) string { return ` ON CONFLICT DO NOTHING` },
		keepMember: sqliteKeepMember,
		use:        indexedBy,
		join:       `JOIN`,
		deleteFrom: func(table, _ string) string { return `DELETE FROM ` + table },
		newest:     `created_at`,
		ended:      endedIndex,
		rowCounts:  []int{64, 16, 4, 1},
		maxVars:    32766,
		exclusive:  true,
		// A write waits for its turn under the caller's context. Then it runs
		// to its end, some milliseconds: breaking it off would gain nothing,
		// and the driver would start a goroutine per statement to watch.
		inTx:    context.WithoutCancel,
		again:   func(error) bool { return false },
		done:    func(error) bool { return false }, // a migration is one transaction
		explain: explainSQLite,
	}, nil
}

// indexedBy implements dialect.use. SQLite has no statistics of our tables, and
// without them would rather look at a namespace's history than at what is live.
func indexedBy(index string) string {
	if index == primaryKey {
		return ``
	}
	return ` INDEXED BY ` + index
}

func explainSQLite(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("the database file is damaged: restore the data directory from a backup: %w", err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("the disk is full: make room: %w", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("the database file cannot be opened or written: see its permissions: %w", err)
	}
	return err
}
