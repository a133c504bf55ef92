package sdktest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"

	_ "modernc.org/sqlite" // the databases of DB
)

// database is a SQLite database in memory. It lives until Close, whatever
// becomes of the connections of its pool (database/sql drops one whose
// transaction's context ends).
type database struct {
	*sql.DB
	anchor *sql.DB
	dies   atomic.Bool // the next commit fails
}

// openMemory opens an empty database with a pool of one connection.
func openMemory() (*database, error) {
	dsn := "file:/" + rand.Text() + "?vfs=memdb"
	anchor, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	anchor.SetMaxOpenConns(1)
	d := &database{anchor: anchor}
	if err := anchor.Ping(); err != nil {
		return nil, errors.Join(err, anchor.Close())
	}
	d.DB = sql.OpenDB(&connector{dsn: dsn, driver: anchor.Driver(), dies: &d.dies})
	d.SetMaxOpenConns(1)
	return d, nil
}

// Close drops the database.
func (d *database) Close() error { return errors.Join(d.DB.Close(), d.anchor.Close()) }

// connector opens connections of the SQLite driver whose commits can fail.
type connector struct {
	dsn    string
	driver driver.Driver
	dies   *atomic.Bool
}

// Connect implements driver.Connector.
func (c *connector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(sqliteConn)
	if !ok {
		return nil, errors.Join(errors.New("sdktest: this SQLite driver lacks methods that database/sql wants"), conn.Close())
	}
	return &dyingConn{sqliteConn: full, dies: c.dies}, nil
}

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return c.driver }

// sqliteConn is what the driver's connections can do.
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

type dyingConn struct {
	sqliteConn
	dies *atomic.Bool
}

// BeginTx implements driver.ConnBeginTx.
func (c *dyingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.sqliteConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &dyingTx{Tx: tx, dies: c.dies}, nil
}

type dyingTx struct {
	driver.Tx
	dies *atomic.Bool
}

var errDied = errors.New("sdktest: the participant died before its commit")

// Commit implements driver.Tx. One that dies leaves the transaction open, as a
// failed commit may.
func (t *dyingTx) Commit() error {
	if t.dies.Swap(false) {
		return errDied
	}
	return t.Tx.Commit()
}
