package cloudevents

import (
	"context"
	"database/sql"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

// Handler adapts fn to an inbox.Consumer of messages that are events. One that is
// none becomes a dead letter at once.
//
// An event that Amends did not write has no Amends id, and the consumer knows its
// place in the log only. Handler then claims Event.UniqueID too, in the same
// transaction, for source: fn is called once for each event, however often its
// producer wrote it. source is as in inbox.New; two handlers that must each see an
// event use two.
func Handler(d *outbox.Dialect, source string, fn func(ctx context.Context, tx *sql.Tx, e Event) error) inbox.Handler {
	return func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		e, err := Parse(m)
		if err != nil {
			return outbox.Poison(err)
		}
		if m.ID != e.ID && m.ID != e.UniqueID() {
			key, err := inbox.New(d, source).Key(e.UniqueID())
			if err != nil {
				return err
			}
			claim, err := inbox.Claim(ctx, tx, d, key)
			if err != nil || !claim.First {
				return err
			}
		}
		return fn(ctx, tx, e)
	}
}
