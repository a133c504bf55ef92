package main

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/cobra"
	_ "modernc.org/sqlite" // the driver of --sqlite

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/outbox"
)

// mysqlEnv names the database when no flag says where the data is.
const mysqlEnv = "AMENDS_MYSQL_DSN"

// aboutDSN ends the help of commands that take --mysql.
const aboutDSN = `
A DSN is user:password@tcp(host:port)/database, with parameters such as
?tls=true behind it, or mysql://user:password@host:port/database. The list of
processes shows --mysql to everybody on the machine, password included. The
environment variable ` + mysqlEnv + `, which is read when neither flag is
given, stays out of it.`

// location is where a command finds its data: a path on this machine or a MySQL
// database. It is complete after resolve.
type location struct {
	path string // of pathFlag; empty: conf counts
	conf *mysql.Config

	pathFlag, dsn string
	maxConns      int
	cmd           *cobra.Command
	from          string // what named it, for errors
}

// flags adds the path's flag and --mysql.
func (l *location) flags(cmd *cobra.Command, pathFlag, usage string) {
	l.cmd, l.pathFlag = cmd, pathFlag
	cmd.Flags().StringVar(&l.path, pathFlag, "", usage)
	cmd.Flags().StringVar(&l.dsn, "mysql", "", "MySQL or MariaDB database, as a `DSN` (better in "+mysqlEnv+")")
}

// connsFlag adds --max-conns, for commands that keep running.
func (l *location) connsFlag(usual string) {
	l.cmd.Flags().IntVar(&l.maxConns, "max-conns", 0, "most connections to --mysql (default "+usual+")")
}

// resolve finds out which place it is. Its errors show nothing of a DSN.
func (l *location) resolve() error {
	given := l.cmd.Flags().Changed
	path, db := given(l.pathFlag), given("mysql")
	l.from = "--" + l.pathFlag
	switch {
	case path && db:
		return usagef("--%s and --mysql exclude each other: give one of them", l.pathFlag)
	case path && l.path == "":
		return usagef("--%s is empty: give a path", l.pathFlag)
	case path && given("max-conns"):
		return usagef("--max-conns is for --mysql: leave it out, --%s has no server", l.pathFlag)
	case path:
		return nil
	case db && l.dsn == "":
		return usagef("--mysql is empty: give a DSN, or set %s and leave --mysql out", mysqlEnv)
	case db:
		l.from = "--mysql"
	case os.Getenv(mysqlEnv) == "":
		return usagef("no place for the data is given: give --%s or --mysql, or set %s", l.pathFlag, mysqlEnv)
	default:
		l.dsn, l.from = os.Getenv(mysqlEnv), mysqlEnv
	}
	if given("max-conns") {
		if l.maxConns < 2 {
			return usagef("--max-conns is %d: give 2 or more", l.maxConns)
		}
		l.from += fmt.Sprintf(" with --max-conns %d", l.maxConns)
	}
	var err error
	if l.conf, err = sqlstore.ParseDSN(l.dsn); err != nil {
		return usagef("%s: %w", l.from, err)
	}
	return nil
}

// String names the place to people, without user and password.
func (l *location) String() string {
	if l.conf == nil {
		return l.path
	}
	return fmt.Sprintf("database %s at %s", l.conf.DBName, l.conf.Addr)
}

// openStore opens a coordinator's store and brings its tables up to date.
// Without into it has no outbox.
func (l *location) openStore(ctx context.Context, log *slog.Logger, into toOutbox) (st store.Store, err error) {
	cfg := &sqlstore.Config{MaxConns: l.maxConns, Outbox: into, Logger: log}
	if l.conf == nil {
		st, err = sqlstore.OpenSQLite(ctx, l.path, cfg)
	} else {
		st, err = sqlstore.OpenMySQL(ctx, l.conf.FormatDSN(), cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.from, err)
	}
	return st, nil
}

// openOutbox opens the database of a service, and tells how to speak to it. A
// SQLite file has to be there: opening would make an empty one of a misspelt name.
func (l *location) openOutbox() (*sql.DB, *outbox.Dialect, error) {
	if l.conf != nil {
		db, err := openMySQL(l.conf, cmp.Or(l.maxConns, relayConns))
		if err != nil {
			return nil, nil, &usageError{fmt.Errorf("%s: %w", l.from, err)}
		}
		return db, outbox.MySQL, nil
	}
	if _, err := os.Stat(l.path); err != nil {
		return nil, nil, fmt.Errorf("--%s: %w", l.pathFlag, err)
	}
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(l.path))
	return db, outbox.SQLite, err
}

// migrateOutbox brings the tables of outbox and inbox up to date.
func (l *location) migrateOutbox(ctx context.Context, db *sql.DB, d *outbox.Dialect) error {
	if err := outbox.Migrate(ctx, db, d); err != nil {
		return l.explain(err)
	}
	return nil
}

// explain says which database an error is about, and what to do about it.
func (l *location) explain(err error) error {
	return fmt.Errorf("%s: %s: %w", l.from, l, explainMySQL(err))
}
