package sdk

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

// Bounds of a courier.
const (
	maxPlaces    = 1000 // messages of one key that wait for an undecided one
	courierLocks = 1024 // keys share that many locks
	releaseRows  = 32   // messages in memory at once
)

// ErrKeyFull says that too many messages of a key wait behind an undecided one.
// The courier refuses further ones.
var ErrKeyFull = errors.New("too many messages of this key wait behind an undecided one")

// Courier publishes two-phase messages. It is a participant with a database of
// its own and an outbox in it: a message that is decided is written to that
// outbox, exactly once, and the outbox's relay publishes it.
//
// A message with a key takes a place in a table, amends_courier, when it is
// prepared, and leaves it when every earlier one of its key is decided. So the
// messages of a key reach the outbox in the order in which they were prepared;
// where two are prepared at the same time, either may be first. Others, and those
// without a key, wait for nothing.
type Courier struct {
	p         *Participant
	box       *outbox.Outbox
	db        *sql.DB
	stmts     courierSQL
	namespace string
}

// NewCourier returns a courier that writes to box, which is in db; run a relay
// for it, in this process or another. cfg may be nil, its Outbox means nothing.
// Several couriers of one database share the work. It panics when an argument
// makes no sense.
func NewCourier(box *outbox.Outbox, db *sql.DB, cfg *ParticipantConfig) *Courier {
	if box == nil {
		panic("sdk: NewCourier: the outbox is nil")
	}
	var own ParticipantConfig
	if cfg != nil {
		own = *cfg
	}
	own.Outbox = box
	c := &Courier{
		p: NewParticipant(MessageService, db, box.Dialect(), &own), box: box, db: db,
		stmts: courierSQLOf(box.Dialect()), namespace: own.Namespace,
	}
	HandleTCC(c.p, Publish, c.prepare, c.publish, c.drop)
	return c
}

// Run makes the tables and performs the coordinators' calls until ctx ends. It is
// Participant.Run, with its errors.
func (c *Courier) Run(ctx context.Context, conns ...grpc.ClientConnInterface) error {
	if !c.p.cfg.SkipMigrate {
		if err := c.Migrate(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("sdk: courier: %w", err)
		}
	}
	return c.p.Run(ctx, conns...)
}

// Migrate creates the table of places, as Run does. It is idempotent.
func (c *Courier) Migrate(ctx context.Context) error {
	for _, stmt := range c.stmts.create {
		if _, err := c.db.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("create amends_courier: %w", err)
		}
	}
	return nil
}

// Forget gives up the places of a transaction's messages that are undecided, so
// that they no longer hold back those of their keys, and reports how many there
// were. It is for a transaction that an operator abandoned, or whose message was
// skipped: no coordinator will ever decide those. One that is confirmed all the
// same is published out of its order.
func (c *Courier) Forget(ctx context.Context, gid string) (n int64, err error) {
	err = outbox.InTx(ctx, c.db, nil, func(tx *sql.Tx) error {
		keys, err := c.keysOf(ctx, tx, c.qualified(gid))
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := c.lock(ctx, tx, key); err != nil {
				return err
			}
		}
		res, err := tx.ExecContext(ctx, c.stmts.forget, c.qualified(gid))
		if err != nil {
			return err
		}
		if n, err = res.RowsAffected(); err != nil {
			return err
		}
		for _, key := range keys {
			if err := c.release(ctx, tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("sdk: courier: forget %q: %w", gid, err)
	}
	c.box.Wake()
	return n, nil
}

// prepare takes a place for a message that has an order to keep.
func (c *Courier) prepare(ctx context.Context, tx *sql.Tx, m outbox.Message) (struct{}, error) {
	if err := checkMessage(&m); err != nil {
		return struct{}{}, Refuse(err)
	}
	if m.Key == "" {
		return struct{}{}, nil
	}
	key := c.placeKey(m.Key)
	var waiting int
	if err := tx.QueryRowContext(ctx, c.stmts.count, key, maxPlaces).Scan(&waiting); err != nil {
		return struct{}{}, err
	}
	if waiting >= maxPlaces {
		return struct{}{}, Refuse(fmt.Errorf("key %q: %w: %d", m.Key, ErrKeyFull, waiting))
	}
	gid, branch := c.place(ctx)
	_, err := tx.ExecContext(ctx, c.stmts.take, gid, branch, key)
	return struct{}{}, err
}

// publish writes a message to the outbox, and those that waited for it; or keeps
// it until it is its turn.
func (c *Courier) publish(ctx context.Context, tx *sql.Tx, m outbox.Message, _ struct{}) error {
	if m.Key == "" {
		return c.box.Write(ctx, tx, m)
	}
	key := c.placeKey(m.Key)
	if err := c.lock(ctx, tx, key); err != nil {
		return err
	}
	traced(ctx, &m)
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	gid, branch := c.place(ctx)
	res, err := tx.ExecContext(ctx, c.stmts.decide, body, gid, branch)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 { // its place was forgotten
		return c.box.Write(ctx, tx, m)
	}
	return c.release(ctx, tx, key)
}

// drop gives a message's place up.
func (c *Courier) drop(ctx context.Context, tx *sql.Tx, m outbox.Message, _ struct{}) error {
	if m.Key == "" {
		return nil
	}
	key := c.placeKey(m.Key)
	if err := c.lock(ctx, tx, key); err != nil {
		return err
	}
	gid, branch := c.place(ctx)
	if _, err := tx.ExecContext(ctx, c.stmts.leave, gid, branch); err != nil {
		return err
	}
	return c.release(ctx, tx, key)
}

// release writes the first messages of a key that are decided to the outbox, up
// to the first one that is not. The key is locked.
func (c *Courier) release(ctx context.Context, tx *sql.Tx, key []byte) error {
	for {
		ready, last, err := c.ready(ctx, tx, key)
		if err != nil || len(ready) == 0 {
			return err
		}
		if err := c.box.Write(ctx, tx, ready...); err != nil {
			return err
		}
		if _, err = tx.ExecContext(ctx, c.stmts.remove, key, last); err != nil || len(ready) < releaseRows {
			return err
		}
	}
}

// traced puts a message into the trace of its own transaction: it may be written
// in that of another, for which it waits.
func traced(ctx context.Context, m *outbox.Message) {
	parent := traceparentOf(ctx)
	if _, own := m.Headers[traceparentKey]; own || parent == "" || len(m.Headers) >= outbox.MaxHeaders {
		return
	}
	headers := maps.Clone(m.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers[traceparentKey] = parent
	m.Headers = headers
}

// ready returns the first releaseRows of those messages and the last one's place.
func (c *Courier) ready(ctx context.Context, tx *sql.Tx, key []byte) (ready []outbox.Message, last int64, err error) {
	rows, err := tx.QueryContext(ctx, c.stmts.places, key, releaseRows)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close() // its error is in rows.Err
	for rows.Next() {
		var place int64
		var body []byte
		if err := rows.Scan(&place, &body); err != nil {
			return nil, 0, err
		}
		if body == nil {
			break
		}
		var m outbox.Message
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, 0, err
		}
		ready, last = append(ready, m), place
	}
	return ready, last, rows.Err()
}

func (c *Courier) keysOf(ctx context.Context, tx *sql.Tx, gid []byte) (keys [][]byte, err error) {
	rows, err := tx.QueryContext(ctx, c.stmts.keys, gid)
	if err != nil {
		return nil, err
	}
	defer rows.Close() // its error is in rows.Err
	for rows.Next() {
		var key []byte
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// lock makes decisions about a key wait for each other: two of them at once
// could each leave the other's message to the other. Claims are the guard's way
// to wait in any database, and these are few and stay.
func (c *Courier) lock(ctx context.Context, tx *sql.Tx, key []byte) error {
	h := fnv.New32a()
	h.Write(key) // never fails
	_, err := inbox.Claim(ctx, tx, c.box.Dialect(), fmt.Sprintf("%s lock %d", MessageService, h.Sum32()%courierLocks))
	return err
}

// place names the place of the message whose call this is.
func (c *Courier) place(ctx context.Context) (gid, branch []byte) {
	info, _ := Info(ctx) // a handler's context
	return c.qualified(info.GID), []byte(info.Branch)
}

func (c *Courier) qualified(gid string) []byte { return []byte(c.namespace + " " + gid) }

// placeKey keeps the keys of namespaces apart: no key holds a NUL.
func (c *Courier) placeKey(key string) []byte { return []byte(c.namespace + "\x00" + key) }
