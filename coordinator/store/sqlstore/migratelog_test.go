package sqlstore

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

// TestMigrateLog: a new store is one line, whatever number of migrations made it;
// an old one is a line for each that changed it; and one that is up to date is none.
func TestMigrateLog(t *testing.T) {
	d, err := sqliteDialect()
	if err != nil {
		t.Fatal(err)
	}
	all, err := readMigrations(d.migrations)
	if err != nil {
		t.Fatal(err)
	}
	latest := all[len(all)-1].version
	const old = 5
	for _, c := range []struct {
		name             string
		from             int
		created, changed int
	}{{"new", 0, 1, 0}, {"old", old, 0, latest - old}, {"up to date", latest, 0, 0}} {
		t.Run(c.name, func(t *testing.T) {
			db, err := pool(filepath.Join(t.TempDir(), databaseFile), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			migrate := func(d *dialect) string {
				var said bytes.Buffer
				log := slog.New(slog.NewTextHandler(&said, nil))
				s := &Store{d: d, log: log, writer: db}
				if err := s.migrate(t.Context(), db, &Config{Shards: 8, Logger: log}); err != nil {
					t.Fatal(err)
				}
				return said.String()
			}
			if c.from > 0 {
				migrate(upTo(t, d, c.from))
			}
			said := migrate(d)
			if strings.Count(said, `"sqlstore: schema created"`) != c.created ||
				strings.Count(said, `"sqlstore: schema changed"`) != c.changed {
				t.Errorf("want %d lines of creation and %d of change:\n%s", c.created, c.changed, said)
			}
		})
	}
}
