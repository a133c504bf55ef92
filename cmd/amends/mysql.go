package main

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
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
