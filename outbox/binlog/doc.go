// Package binlog is an outbox.Source that reads the binary log of MySQL or
// MariaDB as a replica does: a message is known to the relay as soon as its
// transaction is in the log, and the database answers no query for it.
//
//	src, err := binlog.New(binlog.Config{Addr: "db:3306", User: "relay", Password: …, Database: "orders"})
//	relay := outbox.NewRelay(box, db, publisher, &outbox.RelayConfig{Source: src})
//	err = relay.Run(ctx)
//
// There are two modes. In ModeTable the outbox's tables stay the truth: rows
// arrive from the log, are published, and are deleted by id as ever. Whenever the
// log cannot be read, is purged, or is read too slowly, the relay polls the
// tables, and comes back by itself; neither way loses or reorders a message.
//
// In ModeLog the tables have ENGINE=BLACKHOLE and store nothing: the log is the
// only place where a message is until it is published. How far each partition is
// settled is saved in amends_outbox_checkpoint, always at the end of a
// transaction, and reading goes on there after a crash, on another relay, or on
// another primary of the same replication (by GTID). Convert makes the tables so.
// What is purged from the log before it was read is lost: that is logged with the
// range that is missing, and the relay stops there unless Config.SkipLost is set.
//
// The account needs REPLICATION SLAVE to read the log, REPLICATION CLIENT
// (MariaDB: BINLOG MONITOR) to ask where it ends, and SELECT on the outbox's
// tables. docs/binlog.md has the statements.
//
// MariaDB 10.11 is what this package is tested on. The MySQL flavour (GTID sets
// of UUIDs, compressed transactions) is tested on its encodings only.
package binlog
