package inbox

import (
	"context"
	"database/sql"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// TestClaimBehindAnOldSnapshot claims, in a transaction that has read before,
// what another one claimed and committed since: it is a duplicate, with reply.
func TestClaimBehindAnOldSnapshot(t *testing.T) {
	dsn := servicestest.MySQL(t)
	for _, tc := range []struct {
		name      string
		isolation sql.IsolationLevel
		params    map[string]string
		refuse    bool // the server refuses to write behind the snapshot, to be tried again
	}{
		{"read committed", sql.LevelReadCommitted, nil, false},
		{"repeatable read", sql.LevelRepeatableRead, nil, false},
		{"snapshot isolation", sql.LevelRepeatableRead, map[string]string{"innodb_snapshot_isolation": "ON"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := mysql.ParseDSN(dsn)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Params = tc.params
			db, err := sql.Open("mysql", cfg.FormatDSN())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.PingContext(t.Context()); err != nil {
				t.Skip("the server does not know the variable: ", err)
			}
			if err := outbox.Migrate(t.Context(), db, outbox.MySQL); err != nil {
				t.Fatal(err)
			}
			var c Claimed
			claim := func() error {
				return outbox.InTx(t.Context(), db, &sql.TxOptions{Isolation: tc.isolation}, func(tx *sql.Tx) (err error) {
					var n int
					if err := tx.QueryRowContext(t.Context(), `SELECT count(*) FROM amends_inbox`).Scan(&n); err != nil {
						return err
					}
					if _, err := New(outbox.MySQL, "other").Once(t.Context(), db, tc.name, func(tx *sql.Tx) error {
						if _, err := Claim(t.Context(), tx, outbox.MySQL, tc.name); err != nil {
							return err
						}
						return Record(t.Context(), tx, outbox.MySQL, tc.name, []byte("done"))
					}); err != nil {
						return err
					}
					c, err = Claim(t.Context(), tx, outbox.MySQL, tc.name)
					return err
				})
			}
			err = claim()
			if tc.refuse {
				if !outbox.MySQL.Retryable(err) {
					t.Fatalf("the server did not refuse, or with an error that is not retried: %v", err)
				}
				err = claim()
			}
			if err != nil || c.First || string(c.Reply) != "done" {
				t.Errorf("claim %+v, %v; want a duplicate with its reply", c, err)
			}
		})
	}
}

// TestDeadlocksCostNoAttempt has handlers that deadlock with each other.
func TestDeadlocksCostNoAttempt(t *testing.T) {
	b := servers(t)
	b.connect(t, servicestest.Kafka(t)...)
	topic := b.topic(t, 1)
	const stock = `CREATE TABLE stock (article INT PRIMARY KEY, n INT NOT NULL)`
	for _, stmt := range []string{stock, `INSERT INTO stock (article, n) VALUES (0, 0), (1, 0)`} {
		if _, err := b.db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	var together sync.WaitGroup // the first attempts hold one row each before they want the other's
	together.Add(2)
	var once [2]sync.Once
	c := b.consumer(t, ConsumerConfig{Concurrency: 2, Attempts: 1}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		own := int(m.Key[len(m.Key)-1]-'0') % 2
		for i, article := range []int{own, 1 - own} {
			if _, err := tx.ExecContext(ctx, `UPDATE stock SET n = n + 1 WHERE article = ?`, article); err != nil {
				return err
			}
			if i == 0 {
				once[own].Do(func() { together.Done(); together.Wait() })
			}
		}
		return insertHandled(ctx, tx, m)
	}, topic)
	b.publish(t, topic, 0, 2, 2)
	start(t, c)
	eventually(t, "both handled", func() bool { s := c.Stats(); return s.Handled+s.Dead == 2 })
	if s := c.Stats(); s.Dead != 0 || s.Failures == 0 {
		t.Errorf("stats %+v: want a failure, and no dead letter", s)
	}
	b.check(t, 2)
}
