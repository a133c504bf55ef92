// Package sqlstore keeps a coordinator's transactions in a SQL database. One
// implementation serves all of them; what differs is a dialect, a struct of
// statements. SQLite (OpenSQLite) is the embedded one: pure Go, one data
// directory, one process. MySQL (OpenMySQL), MariaDB and what else speaks their
// SQL is for several coordinators over one database.
//
// A batch is one database transaction: the epochs of its leases are compared,
// the transactions' rows are upserted unless a later version is there, events
// and labels are inserted unless they are there. All of it is multi-row
// statements, none per transaction. On MySQL and MariaDB, a batch of one
// transaction is one statement, which does all of that, if there is but a row to
// write: no labels, no messages, and events that have room in the row.
//
// The first events of a transaction are lines of JSON in its row, column trail:
//
//	{"seq":1,"at":1700000000000000,"type":"started","prev":"","hash":"q83v…","data":{"state":"RUNNING"}}
//
// at is in microseconds since 1970, prev and hash are base64. Those that have no
// room there (behind the twelfth, longer than 512 bytes, or sealed) are rows of
// amends_events. A trail is both, in the order of seq.
//
// On a server, a check of epochs locks the leases' rows, so that who takes a
// shard over waits for the commits of its old owner. A transaction that the
// server rolled back, or whose end nobody heard of, is run again: Commit,
// Renew and Release change nothing the second time, Acquire and Purge look
// first whether the first time took effect.
package sqlstore
