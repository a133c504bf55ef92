package main

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	// relayConns are enough for a relay: one a partition, and some to spare.
	relayConns = 8

	dialTimeout = 5 * time.Second
	ioTimeout   = 30 * time.Second // ends the wait for a server that has vanished without a word
	idleTime    = 15 * time.Second
)

var errDSN = errors.New("is no DSN: want user:password@tcp(host:port)/database, or " +
	"mysql://user:password@host:port/database, where what is special in the password is percent-encoded (@ as %40)")

// parseDSN reads the driver's form of a DSN, or a URL. What cannot be read may
// be the password, at any place: errors show none of it, but for parameters
// behind a DSN that is right otherwise.
func parseDSN(dsn string) (*mysql.Config, error) {
	if strings.HasPrefix(dsn, "mysql://") {
		u, err := url.Parse(dsn)
		if err != nil || u.Fragment != "" {
			return nil, errDSN
		}
		password, _ := u.User.Password()
		addr := net.JoinHostPort(cmp.Or(u.Hostname(), "127.0.0.1"), cmp.Or(u.Port(), "3306"))
		name := url.PathEscape(strings.TrimPrefix(u.Path, "/"))
		dsn = fmt.Sprintf("%s:%s@tcp(%s)/%s?%s", u.User.Username(), password, addr, name, u.RawQuery)
	}
	name := strings.LastIndexByte(dsn, '/') + 1
	base, _, _ := strings.Cut(dsn[name:], "?")
	conf, err := mysql.ParseDSN(dsn[:name] + base)
	switch {
	case err != nil || strings.ContainsAny(conf.DBName, "/@()"):
		return nil, errDSN
	case conf.DBName == "":
		return nil, errors.New("names no database: put its name behind the last /")
	}
	if conf, err = mysql.ParseDSN(dsn); err != nil {
		return nil, fmt.Errorf("has wrong parameters: %w", err)
	}
	return conf, nil
}

// openMySQL makes a pool of up to n connections, and connects to nothing yet.
func openMySQL(conf *mysql.Config, n int) (*sql.DB, error) {
	conf = conf.Clone()
	conf.Timeout = cmp.Or(conf.Timeout, dialTimeout)
	conf.ReadTimeout, conf.WriteTimeout = cmp.Or(conf.ReadTimeout, ioTimeout), cmp.Or(conf.WriteTimeout, ioTimeout)
	// One statement takes one round trip. A server that has become a replica
	// costs a connection, not a failure.
	conf.InterpolateParams, conf.RejectReadOnly = true, true
	conf.Logger = &mysql.NopLogger{} // all that it says is in the errors
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(idleTime)
	return db, nil
}

// explainMySQL adds what a person can do about an error of the server.
func explainMySQL(err error) error {
	var said *mysql.MySQLError
	if !errors.As(err, &said) {
		return err
	}
	advice := map[uint16]string{
		1044: "the user may not use this database: GRANT it privileges",
		1045: "the server refuses user or password",
		1049: "the database is not there: CREATE DATABASE",
		1142: "the user lacks a privilege: GRANT it",
	}[said.Number]
	if advice == "" {
		return err
	}
	return fmt.Errorf("%s: %w", advice, err)
}
