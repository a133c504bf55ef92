package debezium

import (
	"context"
	"database/sql"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

// Handler adapts fn to an inbox.Consumer of topics that the router writes, or
// Amends with Message, or both for a while. A message that is neither becomes a
// dead letter at once.
//
// fn is called once for each event id, whoever published it and however often:
// Handler claims it for source, in the same transaction, beside what the consumer
// itself claims. source is as in inbox.New; two handlers that must each see an
// event use two, for example their consumers' groups.
func (r *Router) Handler(d *outbox.Dialect, source string, fn func(ctx context.Context, tx *sql.Tx, e Event) error) inbox.Handler {
	return func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		e, err := r.Parse(m)
		if err != nil {
			return outbox.Poison(err)
		}
		// Not the consumer's own claim of that id, which this transaction may hold: no
		// id of Amends has a NUL.
		key, err := inbox.New(d, source).Key("debezium\x00" + e.ID)
		if err != nil {
			return err
		}
		claim, err := inbox.Claim(ctx, tx, d, key)
		if err != nil || !claim.First {
			return err
		}
		return fn(ctx, tx, e)
	}
}
