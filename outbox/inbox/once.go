package inbox

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/outbox"
)

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
// of the same id runs fn again. After an error of the commit nobody knows
// whether it took place: call Once again.
func (in *Inbox) Once(ctx context.Context, db *sql.DB, id string, fn func(tx *sql.Tx) error) (first bool, err error) {
	key, err := in.Key(id)
	if err != nil {
		return false, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return false, fmt.Errorf("inbox: begin: %w", err)
	}
	defer conn.Close() // gives it back to the pool; its error says nothing about the transaction
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("inbox: begin: %w", err)
	}
	defer func() { // ErrTxDone: it was committed, or rolled back when ctx ended
		if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // as below
		}
	}()
	claim, err := Claim(ctx, tx, in.d, key)
	if err != nil || !claim.First {
		return false, err
	}
	if err := fn(tx); err != nil {
		return false, err
	}
	if err := tx.Commit(); err != nil {
		// Not back into the pool: its transaction may still be open.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // its error is the one given here
		return false, fmt.Errorf("inbox: commit: %w", err)
	}
	return true, nil
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

// Purge forgets up to limit claims of messages (of keys made by Inbox.Key) made
// before a time by the database's clock,
// oldest first, and answers how many. Keep claims longer than a message can come
// again: the topic's retention plus the longest outage of a relay. Call it until
// it answers less than limit. Other claims stay, above all those of the sdk's guard:
// an undo that finds none takes it that nothing was done.
func Purge(ctx context.Context, db *sql.DB, d *outbox.Dialect, before time.Time, limit int) (int, error) {
	if limit <= 0 {
		return 0, errors.New("inbox: purge: the limit must be above 0")
	}
	n, err := affected(db.ExecContext(ctx, d.InboxSQL().Purge, before.UnixMicro(), limit))
	if err != nil {
		return 0, fmt.Errorf("inbox: purge: %w", err)
	}
	return int(n), nil
}
