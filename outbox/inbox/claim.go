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
	return claim(ctx, tx, d, key, nil)
}

// ClaimWith is Claim and, when it is first, Record of a reply that is known
// beforehand, in one statement. A reply of nil is kept as empty.
//
// A Record behind the work notices where the transaction has meanwhile ended: by
// a statement of the work's, or because MySQL rolled it back in a deadlock. Where
// ClaimWith takes its place, Standing can tell after the commit.
func ClaimWith(ctx context.Context, tx *sql.Tx, d *outbox.Dialect, key string, reply []byte) (Claimed, error) {
	return claim(ctx, tx, d, key, notNil(reply))
}

// claim inserts a claim; reply is a []byte, or nil for none.
func claim(ctx context.Context, tx *sql.Tx, d *outbox.Dialect, key string, reply any) (Claimed, error) {
	if err := checkKey(key); err != nil {
		return Claimed{}, err
	}
	n, err := affected(tx.ExecContext(ctx, d.InboxSQL().Claim, []byte(key), reply))
	if err != nil {
		return Claimed{}, fmt.Errorf("inbox: claim %q: %w", key, err)
	}
	if n == 1 {
		return Claimed{First: true}, nil
	}
	kept, found, err := Recorded(ctx, tx, d, key)
	if err == nil && !found {
		err = fmt.Errorf("inbox: read the reply of %q: %w", key, sql.ErrNoRows)
	}
	return Claimed{Reply: kept}, err
}

// Recorded reads, as tx sees it, what Record kept with a claim of key; found is
// false without a claim. It locks nothing and decides nothing: a claim that tx
// does not see may be under way. Who does not find one claims, and who then finds
// that another was first begins the transaction anew: at REPEATABLE READ, it has
// seen the database as it was before that claim.
func Recorded(ctx context.Context, tx *sql.Tx, d *outbox.Dialect, key string) (reply []byte, found bool, err error) {
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	err = tx.QueryRowContext(ctx, d.InboxSQL().Reply, []byte(key)).Scan(&reply)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("inbox: read the reply of %q: %w", key, err)
	}
	return reply, true, nil
}

// Record keeps the reply (any bytes; nil is kept as empty) with a claim, so that
// later claims of the key find it. It replaces what was recorded before.
func Record(ctx context.Context, tx *sql.Tx, d *outbox.Dialect, key string, reply []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	n, err := affected(tx.ExecContext(ctx, d.InboxSQL().Record, notNil(reply), []byte(key)))
	if err != nil {
		return fmt.Errorf("inbox: record the reply of %q: %w", key, err)
	}
	if n == 0 {
		return fmt.Errorf("inbox: record the reply of %q: %w", key, ErrNotClaimed)
	}
	return nil
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
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
