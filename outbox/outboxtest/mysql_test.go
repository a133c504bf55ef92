package outboxtest_test

import (
	"database/sql"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxtest"
)

// TestMySQL runs the suite with the driver's defaults, and with the options of
// driver and server that change what statements answer.
func TestMySQL(t *testing.T) {
	t.Parallel() // beside what keeps another server busy
	t.Run("Defaults", func(t *testing.T) {
		t.Parallel()
		outboxtest.Run(t, func(t *testing.T) (*sql.DB, *outbox.Dialect) {
			return openMySQL(t, func(*mysql.Config) {}), outbox.MySQL
		})
	})
	t.Run("Options", func(t *testing.T) {
		t.Parallel()
		outboxtest.Run(t, func(t *testing.T) (*sql.DB, *outbox.Dialect) {
			return openMySQL(t, func(cfg *mysql.Config) {
				cfg.ClientFoundRows, cfg.InterpolateParams, cfg.ParseTime = true, true, true
				cfg.Params = map[string]string{"sql_mode": "''", "time_zone": "'+05:45'"}
			}), outbox.MySQL
		}, "Migrate", "CommittedInOrder", "AnyBytes", "ManyRelays", "DeadLetters", "Waiting", "Skip", "ReplayAndDiscard", "ConcurrentActs", "FullManyWriters",
			"Claim", "ClaimAnyKey", "ClaimWaits", "ConcurrentClaims", "Once", "Purge")
	})
}

func openMySQL(t *testing.T, set func(cfg *mysql.Config)) *sql.DB {
	t.Helper()
	cfg, err := mysql.ParseDSN(servicestest.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	set(cfg)
	db, err := sql.Open("mysql", cfg.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(64) // the writers of the suite would connect anew for each transaction
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
