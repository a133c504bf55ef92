// Package sqlstore keeps a coordinator's transactions in a SQL database. One
// implementation serves all of them; what differs is a dialect, a struct of
// statements. SQLite (OpenSQLite) is the embedded one: pure Go, one data
// directory, one process.
//
// A batch is one database transaction: the epochs of its leases are compared,
// the transactions' rows are upserted unless a later version is there, events
// and labels are inserted unless they are there. All of it is multi-row
// statements, none per transaction.
package sqlstore
