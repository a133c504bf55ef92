// Package outbox is transactional messaging in the application's own database.
//
// A message is written in the transaction that changes the business rows:
//
//	err := box.Tx(ctx, db, func(tx *sql.Tx) error {
//		if _, err := tx.ExecContext(ctx, insertOrder, …); err != nil {
//			return err
//		}
//		return box.Write(ctx, tx, outbox.Message{Topic: "orders.placed", Key: order.ID, Body: body})
//	})
//
// and a Relay publishes it after the commit. What is guaranteed:
//
//   - A message of a committed transaction is published at least once, one of a
//     rolled-back transaction never.
//   - Messages of one key are published in the order of their commits, provided
//     that the writer holds a lock on what the key stands for while it writes
//     (the order row, for key order.ID). SQLite has one writer, so there it
//     always holds. Messages without a key have no order.
//   - A message can be published twice after a crash or a lost connection.
//     Package inbox suppresses the second one; Keys makes it rarer.
//
// A message with NotBefore waits for its time, and later ones of its key wait
// behind it; neither holds up anything else. Messages of Config.Express topics have
// a lane of their own. The outbox is bounded, in messages, bytes and age, for all
// processes together; what a message that finds it full meets is its topic's
// Policy. A message that can never be published meets the relay's PoisonPolicy.
//
// The table is no log: a row is deleted once it was acknowledged, so its size
// is the backlog. Rows live in a fixed number of physical partitions, chosen by
// the hash of the key; what waits for long is aside, in a table of its own. Operator shows people what waits and what does not get
// through, and acts on it. One relay owns a partition at a time, through a lease and
// an epoch by the database's clock, and each delete verifies the epoch.
package outbox
