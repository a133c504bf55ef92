package check

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite" // the driver of SQLite
)

// Database says where a database is. What is read from it reads the same on
// both kinds.
type Database struct {
	name string // for errors
	open func() (*sql.DB, error)
}

// SQLite is the database in an existing file.
func SQLite(path string) Database {
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"mode": {"rw"}, "_pragma": {"busy_timeout(10000)", "query_only(1)"},
	}.Encode()}
	return Database{path, func() (*sql.DB, error) { return sql.Open("sqlite", dsn.String()) }}
}

// MySQL is an existing database of the server that c names.
func MySQL(c *mysql.Config, name string) Database {
	c = c.Clone()
	c.DBName, c.Logger = name, &mysql.NopLogger{}
	return Database{name, func() (*sql.DB, error) {
		connector, err := mysql.NewConnector(c)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(connector), nil
	}}
}

type scanner func(dest ...any) error

// with opens the database for reading.
func (d Database) with(ctx context.Context, fn func(db *sql.DB) error) error {
	db, err := d.open()
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	if err := errors.Join(db.PingContext(ctx), fn(db), db.Close()); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	return nil
}

// each calls fn for every row.
func each(ctx context.Context, db *sql.DB, query string, fn func(scan scanner) error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close() // its error is that of Err
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
