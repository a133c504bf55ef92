package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
)

// What tells which migrations a database has.
const (
	mysqlHasTable  = `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?`
	sqliteHasTable = `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?`

	storeTable  = `amends_store_migrations`
	storeNewest = `SELECT name FROM amends_store_migrations ORDER BY version DESC LIMIT 1`

	outboxTable  = `amends_migrations`
	outboxNewest = `SELECT version FROM amends_migrations WHERE component = 'outbox' ORDER BY version DESC LIMIT 1`
)

// noSchema is the version of a database without our tables.
const noSchema = "nothing"

// newest reads the last migration that a table of them notes.
func (l *location) newest(ctx context.Context, db *sql.DB, table, query string) (version string, err error) {
	hasTable := sqliteHasTable
	if l.conf != nil {
		hasTable = mysqlHasTable
	}
	var n int
	if err := db.QueryRowContext(ctx, hasTable, table).Scan(&n); err != nil {
		return "", l.explain(err)
	}
	if n == 0 {
		return noSchema, nil
	}
	switch err := db.QueryRowContext(ctx, query).Scan(&version); {
	case errors.Is(err, sql.ErrNoRows):
		return noSchema, nil
	case err != nil:
		return "", l.explain(err)
	}
	return version, nil
}

// storeVersion is the newest migration of a coordinator's store, which is left
// as it is.
func (l *location) storeVersion(ctx context.Context) (version string, err error) {
	db, err := l.peekStore()
	if db == nil || err != nil {
		return noSchema, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return l.newest(ctx, db, storeTable, storeNewest)
}

// peekStore opens the store's database for reading; nil if there is none yet.
func (l *location) peekStore() (*sql.DB, error) {
	if l.conf != nil {
		return openMySQL(l.conf, 1)
	}
	file, err := filepath.Abs(filepath.Join(l.path, "amends.db"))
	if err != nil {
		return nil, err
	}
	switch info, err := os.Stat(file); {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() == 0:
		return nil, nil // a crash at its creation
	}
	query := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)"}}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: file, RawQuery: query.Encode()}).String())
}
