package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"
)

const (
	createVersions = `CREATE TABLE IF NOT EXISTS amends_store_migrations (
 version INTEGER PRIMARY KEY, name VARCHAR(200) NOT NULL, applied_at BIGINT NOT NULL)`
	presentVersion = `SELECT COALESCE(MAX(version), 0) FROM amends_store_migrations`
	insertVersion  = `INSERT INTO amends_store_migrations (version, name, applied_at) VALUES (?, ?, %s)%s`
	firstVersion   = `SELECT version FROM amends_store_migrations WHERE version = 1%s`
	insertShards   = `INSERT INTO amends_leases (shard, owner, epoch, expires_at) VALUES `
)

// migration is one embedded file, NNNN_name.sql.
type migration struct {
	version int
	name    string
	text    string
}

func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return nil, err
	}
	all := make([]migration, len(names))
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("migration %s: its name does not begin with a number: %w", name, err)
		}
		all[i] = migration{version, strings.TrimSuffix(path.Base(name), ".sql"), string(text)}
	}
	return all, nil
}

// migrate brings the schema up to date, each step in a transaction (as far as
// the database has them for schemas), and makes the shards of a new store.
func (s *Store) migrate(ctx context.Context, db *sql.DB, cfg *Config) error {
	all, err := readMigrations(s.d.migrations)
	if err != nil {
		return err
	}
	var present int
	err = s.migrating(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, presentVersion).Scan(&present); err == nil {
			return nil
		} // else the table is missing, most likely; a user who may not create any does not get here
		if _, err := tx.ExecContext(ctx, createVersions); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, presentVersion).Scan(&present)
	})
	if err != nil {
		return err
	}
	if newest := all[len(all)-1].version; present > newest {
		return fmt.Errorf("the database has schema version %d, this program knows up to %d: use a newer amends",
			present, newest)
	}
	for _, m := range all {
		if m.version <= present {
			continue
		}
		err := s.migrating(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return s.apply(ctx, tx, m) })
		if err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
		if present > 0 {
			cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "sqlstore: schema changed", slog.String("migration", m.name))
		}
	}
	if present == 0 {
		cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "sqlstore: schema created", slog.Int("version", all[len(all)-1].version))
	}
	return s.migrating(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return s.prepareLeases(ctx, tx, cfg.Shards) })
}

func (s *Store) migrating(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return s.repeat(ctx, "migrate", func() error { return s.transactOn(ctx, db, fn) })
}

func (s *Store) apply(ctx context.Context, tx *sql.Tx, m migration) error {
	for statement := range strings.SplitSeq(m.text, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, statement); err != nil && !s.d.done(err) {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, fmt.Sprintf(insertVersion, s.d.now, s.d.elseKeep(`version`)), m.version, m.name)
	return err
}

// prepareLeases makes the shards of a new store. In one that is there and
// admits one process at a time, it ends all leases and forgets all members: they
// are dead.
func (s *Store) prepareLeases(ctx context.Context, tx *sql.Tx, shards int) error {
	var n int
	// Two processes may create a store at the same time, with different ideas.
	if err := tx.QueryRowContext(ctx, fmt.Sprintf(firstVersion, s.d.lock)).Scan(&n); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, countShards).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		rows := newMulti(s.d, insertShards, s.d.elseKeep(`shard`), 4)
		return rows.exec(ctx, tx, shards, func(args []any, i int) []any { return append(args, i, "", 0, 0) })
	}
	if s.d.exclusive {
		if _, err := tx.ExecContext(ctx, freeAll); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, deleteMembers)
		return err
	}
	return nil
}
