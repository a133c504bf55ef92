package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// errGone is the answer for a message that was settled elsewhere.
var errGone = errors.New("inbox: settled before")

// errBehind is the answer for a message whose turn has not come: one of its key is in the retry topics.
var errBehind = errors.New("inbox: waits behind an earlier message of its key")

// sendOn sends a message that failed to the next retry topic, or to the dead letters; one that waits behind another
// (why is errBehind) to the retry topic where its turn will come. False when the generation ended before.
func (g *generation) sendOn(ended context.Context, it *item, attempts int, why error) bool {
	var to *retryTopic
	prepared := g.persist(ended, it, true, func() (settled bool, err error) {
		to = nil
		if live, err := g.c.setAside(g.handling, it, why); err != nil || !live {
			return err == nil, err
		}
		next := g.c.retries.next(it, why)
		if next == nil {
			return settledBy(g.bury(it, attempts, why))
		}
		live, err := g.c.keepTurn(g.handling, it)
		if live {
			to = next
		}
		return settledBy(err)
	})
	if !prepared || to == nil {
		return prepared
	}
	refused := false
	sent := g.persist(ended, it, false, func() (settled bool, err error) {
		err = g.publishRetry(it, to, attempts, why)
		refused = errors.Is(err, outbox.ErrPoison) // too large with its headers, most likely
		return err == nil || refused, err
	})
	if !sent || !refused {
		return sent
	}
	why = fmt.Errorf("no retry topic takes the message: %w", why)
	return g.persist(ended, it, true, func() (bool, error) { return settledBy(g.bury(it, attempts, why)) })
}

// publishRetry publishes a message to a retry topic. One that waits for its turn is due at once: its key's messages are
// in one partition there, and so behind each other. Only in the last topic, where its place is lost (the topics have got
// more partitions since), does it wait, so that it does not go round and round.
func (g *generation) publishRetry(it *item, to *retryTopic, attempts int, why error) error {
	behind := errors.Is(why, errBehind)
	if behind {
		why = nil
	}
	m := g.copyOf(it, attempts, why)
	retries := it.place.retries
	if !behind {
		retries++
	}
	m.Headers[headerRetries] = strconv.Itoa(retries)
	if g.c.ordered(it) {
		m.Headers[headerTurn] = "1"
	}
	if !behind || to == it.tracker.retry {
		m.Headers[HeaderRetryAt] = time.Now().Add(to.delay).UTC().Format(time.RFC3339Nano)
	}
	m.Topic = to.name
	if err := errors.Join(g.c.own.Publish(g.handling, []outbox.Message{m})...); err != nil {
		return fmt.Errorf("inbox: retry topic: %w", err)
	}
	if behind {
		g.c.parked.Add(1)
		return nil
	}
	g.c.retried.Add(1)
	g.c.cfg.Logger.Warn("inbox: message sent to a retry topic", "topic", m.Topic, "id", m.ID, "attempts", attempts, "error", why)
	return nil
}

// setAside has a message that is given up go by its claim from now on. Not live: it was handled meanwhile.
func (c *Consumer) setAside(ctx context.Context, it *item, why error) (live bool, err error) {
	at, ok := c.placeOf(it)
	if !ok || errors.Is(why, ErrSequence) { // the mark is another message's
		return true, nil
	}
	return c.inbox.SetAside(ctx, c.db, at)
}

// bury sends a message to the dead letters, as it came and with headers that tell why. It claims nothing: the same
// message, published again to its own topic, is handled.
func (g *generation) bury(it *item, attempts int, why error) error {
	m := g.copyOf(it, attempts, why)
	m.Topic += deadSuffix
	err := g.publishDead(m)
	if errors.Is(err, outbox.ErrPoison) { // with these headers it may be too large; they tell where the rest is
		m.Body, m.Headers[HeaderBody] = nil, "left out: "+strconv.Itoa(len(m.Body))+" bytes"
		for name := range it.message.Headers {
			if !isFailureHeader(name) {
				delete(m.Headers, name)
			}
		}
		err = g.publishDead(m)
	}
	if err == nil {
		err = g.c.settled(g.handling, it)
	}
	if err != nil {
		return fmt.Errorf("inbox: dead letter: %w", err)
	}
	g.c.deadCount.Add(1)
	g.c.cfg.Logger.Error("inbox: message sent to the dead letters", "topic", m.Topic, "id", m.ID, "attempts", attempts,
		"error", why)
	return nil
}

func (g *generation) publishDead(m outbox.Message) error {
	return errors.Join(g.c.dead.Publish(g.handling, []outbox.Message{m})...)
}

// ordered tells whether the message's key keeps its order over the retry topics. A copy goes by what its sender did, so
// that KeepOrder can be changed while there are some: none without a row is taken for settled, none with one leaves it.
func (c *Consumer) ordered(it *item) bool {
	if it.tracker.retry != nil {
		return it.place.turn && it.message.Key != ""
	}
	return c.cfg.KeepOrder && it.message.Key != ""
}

// parkKey is the name of the message's queue in the table of parked messages.
func (c *Consumer) parkKey(it *item) (string, error) {
	return c.inbox.Key(it.message.Topic + "\x00" + it.message.Key)
}

// inTurn runs fn in the claim's transaction if it is the message's turn: in its own topic, when none of its key is
// parked; in a retry topic, when it is the first of those that are, and then its row goes in the same transaction.
func (c *Consumer) inTurn(ctx context.Context, tx *sql.Tx, it *item, fn func() error) error {
	if !c.ordered(it) {
		return fn()
	}
	key, err := c.parkKey(it)
	if err != nil {
		return err
	}
	s, id := statementsOf(c.inbox.d), markID(it.message.ID)
	var first []byte
	if err := tx.QueryRowContext(ctx, s.head, []byte(key)).Scan(&first); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("inbox: read what is parked of %q: %w", key, err)
	}
	if it.tracker.retry == nil {
		if first != nil {
			return errBehind
		}
		return fn()
	}
	if string(first) != string(id) {
		return c.notFirst(ctx, tx, key, id)
	}
	if err := fn(); err != nil {
		return err
	}
	return c.leave(ctx, tx, key, id)
}

// notFirst tells a message that waits from one that was settled, of which this is another copy.
func (c *Consumer) notFirst(ctx context.Context, tx *sql.Tx, key string, id []byte) error {
	var n int
	if err := tx.QueryRowContext(ctx, statementsOf(c.inbox.d).parked, []byte(key), id).Scan(&n); err != nil {
		return fmt.Errorf("inbox: read what is parked of %q: %w", key, err)
	}
	if n == 0 {
		return errGone
	}
	return errBehind
}

// execer is what *sql.DB and *sql.Tx have in common here.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (c *Consumer) leave(ctx context.Context, db execer, key string, id []byte) error {
	if _, err := db.ExecContext(ctx, statementsOf(c.inbox.d).unpark, []byte(key), id); err != nil {
		return fmt.Errorf("inbox: let %q go on: %w", key, err)
	}
	return nil
}

// settled lets the next message of the key have its turn: this one needs no more tries.
func (c *Consumer) settled(ctx context.Context, it *item) error {
	if !c.ordered(it) || it.tracker.retry == nil {
		return nil
	}
	key, err := c.parkKey(it)
	if err != nil {
		return err
	}
	return c.leave(ctx, c.db, key, markID(it.message.ID))
}

// keepTurn gives a message its place in the queue of its key, before it goes to a retry topic. Not live: another member
// has handled it since, and will not send what would give the place up again.
func (c *Consumer) keepTurn(ctx context.Context, it *item) (live bool, err error) {
	if !c.ordered(it) {
		return true, nil
	}
	key, err := c.parkKey(it)
	if err != nil {
		return false, err
	}
	claim, err := c.inbox.Key(it.message.ID)
	if err != nil {
		return false, err
	}
	s := statementsOf(c.inbox.d)
	err = outbox.InTx(ctx, c.db, &sql.TxOptions{Isolation: c.inbox.d.InboxSQL().Isolation}, func(tx *sql.Tx) error {
		claimed, err := Claim(ctx, tx, c.inbox.d, claim) // waits for whoever handles it
		if err != nil {
			return err
		}
		if live = claimed.First; !live {
			return errGone
		}
		_, err = tx.ExecContext(ctx, s.park, []byte(key), markID(it.message.ID))
		if err == nil {
			_, err = tx.ExecContext(ctx, s.unclaim, []byte(claim))
		}
		return err
	})
	switch {
	case err != nil && errors.Is(err, errGone):
		return false, c.settled(ctx, it)
	case err != nil:
		return false, fmt.Errorf("inbox: park %q: %w", key, err)
	}
	return true, nil
}
