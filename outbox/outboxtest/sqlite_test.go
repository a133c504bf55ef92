package outboxtest_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxtest"
)

func TestSQLite(t *testing.T) {
	t.Parallel()
	outboxtest.Run(t, func(t *testing.T) (*sql.DB, *outbox.Dialect) {
		db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "app ?#%.db")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		return db, outbox.SQLite
	})
}
