package bank

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/outbox"
)

const effectsTable = `CREATE TABLE IF NOT EXISTS effects (
  n BIGINT AUTO_INCREMENT PRIMARY KEY, gid VARBINARY(128) NOT NULL, branch VARBINARY(64) NOT NULL,
  op VARBINARY(16) NOT NULL, account INT NOT NULL, cents BIGINT NOT NULL, KEY by_gid (gid))`

// sideTables are those of a side of the bank. An account may go below zero, as
// far as the database cares.
var sideTables = []string{
	`CREATE TABLE IF NOT EXISTS accounts (id INT PRIMARY KEY, cents BIGINT NOT NULL, held BIGINT NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS counters (id INT PRIMARY KEY, n BIGINT NOT NULL)`,
	effectsTable,
}

// notesTables are those of the lists. Entries are never deleted.
var notesTables = []string{
	`CREATE TABLE IF NOT EXISTS heads (list INT PRIMARY KEY, n BIGINT NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS entries (list INT NOT NULL, n BIGINT NOT NULL, msg VARBINARY(128) NOT NULL,
  gid VARBINARY(128) NOT NULL, PRIMARY KEY (list, n))`,
	`CREATE TABLE IF NOT EXISTS intents (gid VARBINARY(128) PRIMARY KEY)`,
	effectsTable,
}

// readerTables are those of whoever reads the lists.
var readerTables = []string{
	`CREATE TABLE IF NOT EXISTS seen (pos BIGINT AUTO_INCREMENT PRIMARY KEY, list INT NOT NULL, n BIGINT NOT NULL,
  msg VARBINARY(128) NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS tallies (list INT PRIMARY KEY, n BIGINT NOT NULL)`,
}

const (
	openAccountSQL = `INSERT IGNORE INTO accounts (id, cents, held) VALUES (?, ?, 0)`
	openCounterSQL = `INSERT IGNORE INTO counters (id, n) VALUES (?, 0)`
	openHeadSQL    = `INSERT IGNORE INTO heads (list, n) VALUES (?, 0)`
	openTallySQL   = `INSERT IGNORE INTO tallies (list, n) VALUES (?, 0)`
)

// Open makes a pool of up to n connections to a database. A server that is
// away costs a connection.
func Open(dsn string, n int) (*sql.DB, error) {
	c, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	c.ClientFoundRows, c.InterpolateParams = true, true
	c.Timeout = cmp.Or(c.Timeout, 2*time.Second)
	c.ReadTimeout, c.WriteTimeout = cmp.Or(c.ReadTimeout, 20*time.Second), cmp.Or(c.WriteTimeout, 20*time.Second)
	c.Logger = &mysql.NopLogger{} // what it says is in the errors
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// PrepareSide makes the tables of a side of the bank, with its money.
func PrepareSide(ctx context.Context, dsn string) error {
	return prepare(ctx, dsn, sideTables, func(db *sql.DB) error {
		for id := range Accounts {
			if _, err := db.ExecContext(ctx, openAccountSQL, id, Opening); err != nil {
				return err
			}
		}
		return rows(ctx, db, openCounterSQL, Counters)
	})
}

// PrepareNotes makes the tables of the lists.
func PrepareNotes(ctx context.Context, dsn string) error {
	return prepare(ctx, dsn, notesTables, func(db *sql.DB) error { return rows(ctx, db, openHeadSQL, Lists) })
}

// PrepareReader makes the tables of whoever reads the lists.
func PrepareReader(ctx context.Context, dsn string) error {
	return prepare(ctx, dsn, readerTables, func(db *sql.DB) error { return rows(ctx, db, openTallySQL, Lists) })
}

func rows(ctx context.Context, db *sql.DB, insert string, n int) error {
	for id := range n {
		if _, err := db.ExecContext(ctx, insert, id); err != nil {
			return err
		}
	}
	return nil
}

func prepare(ctx context.Context, dsn string, tables []string, fill func(db *sql.DB) error) (err error) {
	db, err := Open(dsn, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, table := range tables {
		if _, err := db.ExecContext(ctx, table); err != nil {
			return err
		}
	}
	if err := outbox.Migrate(ctx, db, outbox.MySQL); err != nil {
		return err
	}
	return fill(db)
}

// one runs a statement that changes one row. It reports false when there was
// none to change.
func one(ctx context.Context, tx *sql.Tx, query string, args ...any) (bool, error) {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	if err == nil && n > 1 {
		err = fmt.Errorf("%d rows changed, want 1 at most: %s", n, query)
	}
	return n == 1, err
}

// must runs a statement that has to find its row.
func must(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	found, err := one(ctx, tx, query, args...)
	if err == nil && !found {
		err = fmt.Errorf("%w: %s %v", errNoRow, query, args)
	}
	return err
}
