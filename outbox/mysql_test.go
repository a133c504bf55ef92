package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
)

func openMySQL(t testing.TB, set func(cfg *mysql.Config)) *sql.DB {
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
	t.Cleanup(func() { db.Close() })
	if err := Migrate(t.Context(), db, MySQL); err != nil {
		t.Fatal(err)
	}
	return db
}

// TestDeleteBlocksNoWriter has a relay's delete under way: writers go on.
func TestDeleteBlocksNoWriter(t *testing.T) {
	db := openMySQL(t, func(cfg *mysql.Config) { cfg.Params = map[string]string{"innodb_lock_wait_timeout": "1"} })
	ctx, box := t.Context(), New(MySQL, nil)
	write := func() error {
		return box.Tx(ctx, db, func(tx *sql.Tx) error {
			return box.Write(ctx, tx, Message{Topic: "t", Key: "k"}, Message{Topic: "t", Key: "k"})
		})
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	m := Message{Key: "k"}
	stmts := &MySQL.part[m.partition()]
	var low, high int64
	span := `SELECT min(id), max(id) FROM amends_outbox_` + fmt.Sprint(m.partition())
	if err := db.QueryRowContext(ctx, span).Scan(&low, &high); err != nil || high != low+1 {
		t.Fatal(low, high, err)
	}
	err := InTx(ctx, db, MySQL.txOptions(), func(tx *sql.Tx) error {
		if n, err := execCount(ctx, tx, stmts.remove, low, high); n != 2 || err != nil {
			return fmt.Errorf("%d rows deleted: %w", n, err)
		}
		return write()
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Depth(ctx, db, MySQL); err != nil || b.Rows != 2 {
		t.Errorf("depth %+v, %v; want the 2 rows written during the delete", b, err)
	}
}

// TestClosedConnections has a pool full of connections that the server has
// closed meanwhile, as it does with idle ones and when it restarts.
func TestClosedConnections(t *testing.T) {
	db := openMySQL(t, func(*mysql.Config) {})
	admin := openMySQL(t, func(*mysql.Config) {})
	const pool = 8
	db.SetMaxIdleConns(pool)
	var conns []*sql.Conn
	for range pool {
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		var id int64
		if err := c.QueryRowContext(t.Context(), `SELECT connection_id()`).Scan(&id); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.ExecContext(t.Context(), fmt.Sprintf("KILL %d", id)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range conns {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	box := New(MySQL, nil)
	for range pool {
		err := box.Tx(t.Context(), db, func(tx *sql.Tx) error { return box.Write(t.Context(), tx, Message{Topic: "t"}) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if b, err := Depth(t.Context(), db, MySQL); err != nil || b.Rows != pool {
		t.Errorf("depth %+v, %v; want %d rows", b, err, pool)
	}
}

func TestRetryable(t *testing.T) {
	deadlock := &mysql.MySQLError{Number: 1213, Message: "Deadlock found"}
	for _, tc := range []struct {
		name string
		err  error
		want bool
	}{
		{"nil", nil, false},
		{"deadlock", deadlock, true},
		{"wrapped", fmt.Errorf("a: %w", fmt.Errorf("b: %w", deadlock)), true},
		{"joined", errors.Join(errors.New("x"), fmt.Errorf("%w, %w", context.Canceled, deadlock)), true},
		{"lock wait", &mysql.MySQLError{Number: 1205}, true},
		{"duplicate", &mysql.MySQLError{Number: 1062}, false},
		{"lost connection", mysql.ErrInvalidConn, false},
		{"nil pointer", (*mysql.MySQLError)(nil), false},
	} {
		if got := MySQL.Retryable(tc.err); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
		if SQLite.Retryable(tc.err) {
			t.Errorf("%s: SQLite has no such error", tc.name)
		}
	}
}
