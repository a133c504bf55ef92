package outbox

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// memKeys is Keys in memory with a hook in its questions.
type memKeys struct {
	seen, ack map[string]bool
	asked     func()
}

func newMemKeys() *memKeys { return &memKeys{seen: map[string]bool{}, ack: map[string]bool{}} }

func (k *memKeys) MarkAcked(_ context.Context, _ int, ids []string) error {
	for _, id := range ids {
		k.ack[id] = true
	}
	return nil
}

func (k *memKeys) Acked(context.Context, int, []string) (map[string]bool, error) {
	if k.asked != nil {
		k.asked()
	}
	return k.ack, nil
}

func (k *memKeys) Seen(_ context.Context, keys []string) ([]bool, error) {
	out := make([]bool, len(keys))
	for i, key := range keys {
		out[i] = k.seen[key]
	}
	return out, nil
}

func (k *memKeys) MarkSeen(_ context.Context, keys []string) error {
	for _, key := range keys {
		k.seen[key] = true
	}
	return nil
}

// TestNothingIsPublishedAfterTheLease (kills r3, r4): the relay sleeps past its lease, before a step or while it asks
// Redis, and another takes the partition.
func TestNothingIsPublishedAfterTheLease(t *testing.T) {
	for _, when := range []string{"before a step", "between read and publish"} {
		t.Run(when, func(t *testing.T) {
			p, log := newTestPartition(t)
			insert(t, p, 1, "k")
			sleep := func() {
				p.lease.until = time.Now().Add(-time.Second)
				if _, err := p.r.db.Exec(`UPDATE amends_outbox_owner SET epoch = epoch + 1 WHERE part = 0`); err != nil {
					t.Fatal(err)
				}
			}
			if when == "before a step" {
				sleep()
			} else {
				keys := newMemKeys()
				keys.asked = sleep
				p.r.keys.keys, p.checks = keys, 1
			}
			if _, err := p.step(t.Context()); !errors.Is(err, errLost) {
				t.Errorf("error %v, want %v", err, errLost)
			}
			if got := log.ids(); got != "" {
				t.Errorf("published %s", got)
			}
		})
	}
}

// TestFailedMessageIsNotSeen (kills r6): an idempotency key is remembered for what was acknowledged only.
func TestFailedMessageIsNotSeen(t *testing.T) {
	p, log := newTestPartition(t)
	p.r.cfg.MaxBackoff = time.Millisecond
	p.r.keys.keys = newMemKeys()
	fails := 2
	log.fail = func(Message) bool { fails--; return fails >= 0 }
	insert(t, p, 1, "k")
	if _, err := p.r.db.Exec(`UPDATE amends_outbox_0 SET idem_key = 'order-1'`); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); log.ids() == "" && time.Now().Before(end); {
		if _, err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := log.ids(); got != "1" {
		t.Errorf("published %q, want 1: it was dropped as a duplicate of itself", got)
	}
}

// lame is a SQLite whose next commit or rollback fails and leaves the transaction open, as other drivers' do.
type lame struct {
	driver.Conn
	commit, rollback *atomic.Bool
}

type lameConnector struct {
	dsn              string
	d                driver.Driver
	commit, rollback atomic.Bool
}

func (c *lameConnector) Driver() driver.Driver { return c.d }
func (c *lameConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.d.Open(c.dsn)
	return &lame{conn, &c.commit, &c.rollback}, err
}

func (c *lame) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, q, args)
}

func (c *lame) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, q, args)
}

func (c *lame) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
	return &lameTx{tx, c}, err
}

type lameTx struct {
	driver.Tx
	c *lame
}

func (t *lameTx) Commit() error {
	if t.c.commit.Swap(false) {
		return errors.New("packet lost")
	}
	return t.Tx.Commit()
}

func (t *lameTx) Rollback() error {
	if t.c.rollback.Swap(false) {
		return errors.New("packet lost")
	}
	return t.Tx.Rollback()
}

// TestNoDirtySession: whatever fails at the end of a transaction, the pool's next user is not inside of it. The same
// for inbox.Once (kills i3) and the guard (kills g5), with this connector.
func TestNoDirtySession(t *testing.T) {
	plain, err := sql.Open("sqlite", "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for _, at := range []string{"commit", "rollback"} {
		t.Run(at, func(t *testing.T) {
			c := &lameConnector{dsn: SQLiteDSN(filepath.Join(t.TempDir(), "app.db")), d: plain.Driver()}
			db := sql.OpenDB(c)
			defer db.Close()
			db.SetMaxOpenConns(1)
			if _, err := db.Exec(`CREATE TABLE effects (id INTEGER)`); err != nil {
				t.Fatal(err)
			}
			c.commit.Store(at == "commit")
			c.rollback.Store(at == "rollback")
			err := InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
				_, err := tx.Exec(`INSERT INTO effects VALUES (1)`)
				if at == "rollback" {
					err = errors.New("handler")
				}
				return err
			})
			var n int
			if e := db.QueryRow(`SELECT count(*) FROM effects`).Scan(&n); err == nil || e != nil || n != 0 {
				t.Errorf("%d effects in the pool's next session (%v, %v)", n, err, e)
			}
		})
	}
}
