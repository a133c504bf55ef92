package binlog_test

import (
	"context"
	"database/sql"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
)

// relayFromLog is a whole relay that reads the log.
func relayFromLog(
	ctx context.Context, db *sql.DB, box *outbox.Outbox, publisher outbox.Publisher, password string,
) error {
	src, err := binlog.New(binlog.Config{Addr: "db:3306", User: "relay", Password: password, Database: "orders"})
	if err != nil {
		return err
	}
	relay := outbox.NewRelay(box, db, publisher, &outbox.RelayConfig{Source: src})
	return relay.Run(ctx)
}

// ExampleNew makes the relay of a database poll no more.
func ExampleNew() {
	_ = relayFromLog
}
