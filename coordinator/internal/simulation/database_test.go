package simulation

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the databases of services
)

// database is a SQLite database in memory that outlives the processes that use
// it. They take turns at its only connection.
type database struct {
	w      *world
	name   string
	dsn    string
	anchor *sql.DB
	turn   chan struct{}
	free   sqliteConn // of whose turn it is
}

// databases makes names that no other database of this test program has.
var databases atomic.Int64

func (w *world) newDatabase(name, schema string) *database {
	w.t.Helper()
	d := &database{w: w, name: name, turn: make(chan struct{}, 1),
		dsn: fmt.Sprintf("file:/simulation-%d-%s?vfs=memdb", databases.Add(1), name)}
	anchor, err := sql.Open("sqlite", d.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	anchor.SetMaxOpenConns(1)
	d.anchor = anchor
	if _, err := anchor.Exec(schema); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// open is the database as one process sees it. Every use of it is a connection
// of its own, and a connection is a turn: to wait for one is to wait in Connect,
// where database/sql holds no mutex, which virtual time would not know of.
func (d *database) open(p *process) *sql.DB {
	db := sql.OpenDB(&connector{d: d, p: p})
	db.SetMaxIdleConns(-1)
	return db
}

type connector struct {
	d *database
	p *process
}

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	d, p := c.d, c.p
	if err := p.pass(); err != nil {
		return nil, err
	}
	if err := sleep(ctx, d.w.upTo(3*time.Millisecond, "connect", d.name, p.id, d.w.nth("connect", d.name, p.id))); err != nil {
		return nil, err
	}
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	err := p.pass()
	if err == nil && d.free == nil {
		var conn driver.Conn
		conn, err = d.anchor.Driver().Open(d.dsn)
		d.free, _ = conn.(sqliteConn)
	}
	if err != nil {
		<-d.turn
		return nil, err
	}
	return &dbConn{sqliteConn: d.free, d: d, p: p}, nil
}

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return c.d.anchor.Driver() }

type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// dbConn is the one connection there is, while it is a process's turn.
type dbConn struct {
	sqliteConn
	d  *database
	p  *process
	in bool // a transaction
}

// BeginTx implements driver.ConnBeginTx.
func (c *dbConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.sqliteConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.in = true
	return &dbTx{Tx: tx, c: c}, nil
}

// ExecContext implements driver.ExecerContext.
func (c *dbConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if query == "ROLLBACK" {
		c.in = false
	} else if c.p.dead.Load() {
		return nil, errDead
	}
	return c.sqliteConn.ExecContext(ctx, virtual(query), args)
}

// QueryContext implements driver.QueryerContext.
func (c *dbConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.sqliteConn.QueryContext(ctx, virtual(query), args)
}

// Close implements driver.Conn: it ends the turn, and whatever transaction is
// still open, as the database does when a connection is lost.
func (c *dbConn) Close() (err error) {
	if c.in {
		_, err = c.sqliteConn.ExecContext(context.Background(), "ROLLBACK", nil)
	}
	<-c.d.turn
	return err
}

type dbTx struct {
	driver.Tx
	c *dbConn
}

var errCommit = errors.New("simulation: the connection broke in the commit")

// Commit implements driver.Tx: what it answers need not be what it did.
func (t *dbTx) Commit() error {
	c := t.c
	w, n := c.d.w, c.d.w.nth("commit", c.d.name, c.p.id)
	if c.p.dead.Load() {
		return errors.Join(errDead, t.Rollback())
	}
	at := func(p float64, what string) bool { return w.rough(p, what, c.d.name, c.p.id, n) }
	switch {
	case at(0.01, "crash before commit"):
		c.p.kill("before it commits in %s", c.d.name)
		return errors.Join(errDead, t.Rollback())
	case at(0.01, "commit lost"):
		w.fault("commit lost", c.p.id, "in %s", c.d.name)
		return errCommit // and the transaction stays open
	}
	if err := t.Tx.Commit(); err != nil {
		return err
	}
	c.in = false
	switch {
	case at(0.01, "crash after commit"):
		c.p.kill("after it committed in %s", c.d.name)
		return errDead
	case at(0.01, "commit unheard"):
		w.fault("commit unheard", c.p.id, "in %s", c.d.name)
		return errCommit
	}
	return nil
}

// Rollback implements driver.Tx.
func (t *dbTx) Rollback() error {
	t.c.in = false
	return t.Tx.Rollback()
}

// virtual has a statement use the bubble's clock instead of SQLite's.
func virtual(query string) string {
	const clock = "unixepoch('subsec')"
	if !strings.Contains(query, clock) {
		return query
	}
	now := time.Now().UnixMilli()
	return strings.ReplaceAll(query, clock, fmt.Sprintf("%d.%03d", now/1000, now%1000))
}

// close drops the database.
func (d *database) close() error {
	var err error
	if d.free != nil {
		err = d.free.Close()
	}
	return errors.Join(err, d.anchor.Close())
}

// rows reads two columns.
func (d *database) rows(t testing.TB, query string) (all [][2]string) {
	t.Helper()
	rows, err := d.anchor.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	for rows.Next() {
		var r [2]string
		if err := rows.Scan(&r[0], &r[1]); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	return all
}
