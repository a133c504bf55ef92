package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"strings"
)

// component is this package's name in amends_migrations.
const component = "outbox"

// Migrate creates or upgrades the tables of outbox and inbox: amends_outbox_0…4,
// amends_outbox_aside, _owner, _dead, _blocked, _acts and _identity, amends_inbox and
// amends_migrations.
// It is idempotent and may run in several processes at once; it never runs in a
// transaction of the caller.
func Migrate(ctx context.Context, db *sql.DB, d *Dialect) error {
	var done int
	if db.QueryRowContext(ctx, d.migrated.has, component, "").Scan(&done) != nil { // no such table, most likely
		if _, err := db.ExecContext(ctx, d.migrated.create); err != nil {
			return fmt.Errorf("outbox: migrate: create amends_migrations: %w", err)
		}
	}
	files, err := fs.Glob(d.migrations, "*.sql") // sorted by name
	if err != nil {
		return fmt.Errorf("outbox: migrate: %w", err)
	}
	for _, file := range files {
		if err := migrateFile(ctx, db, d, file); err != nil {
			return fmt.Errorf("outbox: migrate: %s: %w", file, err)
		}
	}
	return nil
}

// migrateFile runs a file's statements unless they are recorded as done. Each
// is idempotent, so a crash between them and the record only repeats them.
func migrateFile(ctx context.Context, db *sql.DB, d *Dialect, file string) error {
	version := strings.TrimSuffix(file, ".sql")
	var done int
	if err := db.QueryRowContext(ctx, d.migrated.has, component, version).Scan(&done); err != nil {
		return err
	}
	if done > 0 {
		return nil
	}
	text, err := fs.ReadFile(d.migrations, file)
	if err != nil {
		return err
	}
	for stmt := range strings.SplitSeq(string(text), ";\n") {
		if strings.TrimSpace(stmt) == "" {
			continue
		}
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return err
		}
	}
	_, err = db.ExecContext(ctx, d.migrated.add, component, version)
	return err
}
