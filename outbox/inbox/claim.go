package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/amends-dev/amends/outbox"
)

// MaxKey is the longest claim key, in bytes.
const MaxKey = 512

// ErrKey is returned for a claim key that is empty or longer than MaxKey.
var ErrKey = errors.New("inbox: illegal claim key")

// ErrNotClaimed is returned by Record for a key without a claim.
var ErrNotClaimed = errors.New("inbox: the key is not claimed: call Claim first, in the same transaction")

// Claimed is what Claim found.
type Claimed struct {
	// First tells that this transaction made the claim: do the work.
	First bool
	// Reply is what Record kept with an earlier claim; nil when nothing was
	// recorded, or when First.
	Reply []byte
}

// Claim claims key (1 to MaxKey bytes, any bytes) in tx. It inserts first and
// decides after: a concurrent claim of the same key waits for the other
// transaction to end, and is first only if that one rolled back. outbox.Migrate
// makes the table.
//
// Keys of three or four words, with one space between them, of which the last is
// "do", "try" or "end" are those of the guard of package sdk, which deletes them
// when they are old. Whoever deletes others is whoever made them: see
// ForgetClaims and, for messages, Purge.
//
// On MySQL the wait can end in a deadlock or a timeout, mostly when several wait
// for a transaction that then rolls back. The error is outbox.Dialect.Retryable:
// roll tx back, and run it again.
//
// On SQLite tx must not have read before it claims, unless the transaction took
// the write lock when it began (outbox.SQLiteDSN sees to that).
func Claim(ctx context.Context, tx *sql.Tx, d *outbox.Dialect, key string) (Claimed, error) {
	if err := checkKey(key); err != nil {
		return Claimed{}, err
	}
	stmts := d.InboxSQL()
	n, err := affected(tx.ExecContext(ctx, stmts.Claim, []byte(key)))
	if err != nil {
		return Claimed{}, fmt.Errorf("inbox: claim %q: %w", key, err)
	}
	if n == 1 {
		return Claimed{First: true}, nil
	}
	var c Claimed
	if err := tx.QueryRowContext(ctx, stmts.Reply, []byte(key)).Scan(&c.Reply); err != nil {
		return Claimed{}, fmt.Errorf("inbox: read the reply of %q: %w", key, err)
	}
	return c, nil
}

// Record keeps the reply (any bytes; nil is kept as empty) with a claim, so that
// later claims of the key find it. It replaces what was recorded before.
func Record(ctx context.Context, tx *sql.Tx, d *outbox.Dialect, key string, reply []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if reply == nil {
		reply = []byte{}
	}
	n, err := affected(tx.ExecContext(ctx, d.InboxSQL().Record, reply, []byte(key)))
	if err != nil {
		return fmt.Errorf("inbox: record the reply of %q: %w", key, err)
	}
	if n == 0 {
		return fmt.Errorf("inbox: record the reply of %q: %w", key, ErrNotClaimed)
	}
	return nil
}

func checkKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrKey)
	}
	if len(key) > MaxKey {
		return fmt.Errorf("%w: it is %d bytes long, at most %d are allowed: use a digest of it", ErrKey, len(key), MaxKey)
	}
	return nil
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
