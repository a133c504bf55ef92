package service

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite" // the driver of sqlite

	"github.com/amends-dev/amends/outbox"
)

// kind is all that differs between the databases that the shop runs on.
type kind struct {
	dialect *outbox.Dialect // of outbox, inbox and guard
	connect func(name string, cfg Config) (*sql.DB, error)
	// words stand in for those in braces. {serial} is a column that numbers the
	// rows; "INSERT … {else} a = b" changes the row that is there already, and
	// locks it as a change does, also if nothing changes.
	words *strings.Replacer
}

// say is a statement in the database's own words.
func (k *kind) say(query string) string { return k.words.Replace(query) }

func kindOf(cfg Config) *kind {
	if cfg.MySQL != "" {
		return &kind{outbox.MySQL, connectMySQL, strings.NewReplacer(
			"{serial}", "BIGINT AUTO_INCREMENT PRIMARY KEY", "{else}", "ON DUPLICATE KEY UPDATE")}
	}
	return &kind{outbox.SQLite, connectSQLite, strings.NewReplacer(
		"{serial}", "INTEGER PRIMARY KEY", "{else}", "ON CONFLICT DO UPDATE SET")}
}

// open opens the database of a service, and makes its tables.
func (k *kind) open(ctx context.Context, name string, cfg Config, tables []string) (*sql.DB, error) {
	db, err := k.connect(name, cfg)
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		if _, err := db.ExecContext(ctx, k.say(table)); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	if err := outbox.Migrate(ctx, db, k.dialect); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func connectSQLite(name string, cfg Config) (*sql.DB, error) {
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(cfg.Dir, name+".db")))
	if err == nil && name != Order { // whose outbox counts its rows beside the transactions
		db.SetMaxOpenConns(1) // SQLite has one writer: handlers wait for it here, in line
	}
	return db, err
}

// connectMySQL: a server that is away costs a connection, not a process.
func connectMySQL(_ string, cfg Config) (*sql.DB, error) {
	c, err := mysql.ParseDSN(cfg.MySQL)
	if err != nil {
		return nil, err
	}
	c.ClientFoundRows = true // an UPDATE affects the rows that it finds, as with SQLite
	c.Timeout = cmp.Or(c.Timeout, 2*time.Second)
	c.ReadTimeout, c.WriteTimeout = cmp.Or(c.ReadTimeout, 30*time.Second), cmp.Or(c.WriteTimeout, 30*time.Second)
	c.Logger = &mysql.NopLogger{} // what it says is in the errors
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(32)
	db.SetMaxIdleConns(32)
	return db, nil
}
