package inbox

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// claimTries is how often Once claims before it gives up on a database that lets
// others win.
const claimTries = 5

// Inbox remembers the messages of one source. Safe for concurrent use.
type Inbox struct {
	d      *outbox.Dialect
	source string
}

// New makes the inbox of a source: whatever gives messages their ids, for
// example a topic or a consumer group. Two handlers that must each see a message
// use two sources. The source is at most MaxKey/2 bytes and holds no NUL; Once
// returns ErrKey otherwise.
func New(d *outbox.Dialect, source string) *Inbox { return &Inbox{d: d, source: source} }

// Once runs fn in a transaction of db together with the claim of id, and
// commits both, so that fn's changes made through tx take effect exactly once
// for each id. first is false, and fn does not run, when id was handled before.
// When fn fails, nothing is remembered and its error is returned; the next Once
// of the same id runs fn again. fn must return tx's errors, as a Handler must.
// After an error of the commit nobody knows whether it took place: call Once
// again.
func (in *Inbox) Once(ctx context.Context, db *sql.DB, id string, fn func(tx *sql.Tx) error) (first bool, err error) {
	key, err := in.Key(id)
	if err != nil {
		return false, err
	}
	return in.once(ctx, db, in.claims(ctx, key), fn)
}

// claiming tells, as the first statements of a transaction, whether it is the first to handle a message.
type claiming func(tx *sql.Tx) (first bool, err error)

func (in *Inbox) claims(ctx context.Context, key string) claiming {
	return func(tx *sql.Tx) (bool, error) {
		c, err := Claim(ctx, tx, in.d, key)
		return c.First, err
	}
}

// once claims, again where the database lets others win, and runs fn.
func (in *Inbox) once(ctx context.Context, db *sql.DB, claim claiming, fn func(tx *sql.Tx) error) (first bool, err error) {
	for tries := 1; ; tries++ {
		first, ran, err := in.try(ctx, db, claim, fn)
		if err == nil || ran || tries == claimTries || !in.d.Retryable(err) || ctx.Err() != nil {
			return first, err
		}
	}
}

// errDuplicate rolls a transaction back that has nothing to do.
var errDuplicate = errors.New("inbox: handled before")

// try claims and runs fn, once. ran tells whether fn was called.
func (in *Inbox) try(ctx context.Context, db *sql.DB, claim claiming, fn func(tx *sql.Tx) error) (first, ran bool, err error) {
	var own error // claim's or fn's
	err = outbox.InTx(ctx, db, nil, func(tx *sql.Tx) error {
		if first, own = claim(tx); own != nil {
			return own
		}
		if !first {
			return errDuplicate
		}
		ran = true
		own = fn(tx)
		return own
	})
	switch {
	case err == nil:
		return true, true, nil
	case own != nil:
		return false, ran, own
	case !ran && errors.Is(err, errDuplicate):
		return false, false, nil
	}
	return false, ran, fmt.Errorf("inbox: %w", err)
}

// Key is the claim key of a message of this inbox, for Claim and Record in a
// transaction of one's own: the source, a NUL, and the id, or "sha256:" and the
// id's digest where that would be longer than MaxKey.
func (in *Inbox) Key(id string) (string, error) {
	if in.source == "" || len(in.source) > MaxKey/2 {
		return "", fmt.Errorf("%w: the source has %d bytes: use 1 to %d", ErrKey, len(in.source), MaxKey/2)
	}
	for i := range len(in.source) {
		if in.source[i] == 0 {
			return "", fmt.Errorf("%w: the source %q holds a NUL byte", ErrKey, in.source)
		}
	}
	if id == "" {
		return "", fmt.Errorf("%w: the message id is empty: give each message an id that stays the same "+
			"when it is sent again", ErrKey)
	}
	if len(in.source)+1+len(id) > MaxKey {
		sum := sha256.Sum256([]byte(id))
		id = "sha256:" + hex.EncodeToString(sum[:])
	}
	return in.source + "\x00" + id, nil
}

// Purge forgets up to limit claims made before a time by the database's clock,
// oldest first, and answers how many. Keep claims longer than a message can come
// again: the topic's retention plus the longest outage of a relay. Call it until
// it answers less than limit.
func Purge(ctx context.Context, db *sql.DB, d *outbox.Dialect, before time.Time, limit int) (int, error) {
	return purge(ctx, db, d, d.InboxSQL().Purge, before, limit)
}
