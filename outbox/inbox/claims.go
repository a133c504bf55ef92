package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// OldClaim is a claim as OldClaims lists it.
type OldClaim struct {
	Key string
	Age time.Duration // by the database's clock

	at int64 // when it was made, in microseconds since 1970
}

// claimStatements are those that list and delete claims by their age, in a dialect.
type claimStatements struct {
	old    string // (age in microseconds, at, at, key, limit): by the index of claimed_at, which holds the keys too
	forget string // (age in microseconds), and in {keys} as many keys as there are
}

const (
	oldClaims = `SELECT claim_key, claimed_at, {now} - claimed_at FROM amends_inbox
WHERE claimed_at < {now} - ? AND claimed_at >= ? AND (claimed_at > ? OR claim_key > ?)
ORDER BY claimed_at, claim_key LIMIT ?`
	forgetClaims = `DELETE FROM amends_inbox WHERE claimed_at < {now} - ? AND claim_key IN ({keys})`
)

func claimStatementsOf(d *outbox.Dialect) claimStatements {
	now := sqliteNow
	if d == outbox.MySQL {
		now = mysqlNow
	}
	return claimStatements{
		old:    strings.ReplaceAll(oldClaims, "{now}", now),
		forget: strings.ReplaceAll(forgetClaims, "{now}", now),
	}
}

// OldClaims lists up to limit (1 or more) claims that are older than an age by the database's clock, whoever made them:
// the oldest first, from behind one that was listed before; the zero OldClaim stands before all. It reads an index and
// no replies.
func OldClaims(ctx context.Context, db *sql.DB, d *outbox.Dialect, age time.Duration, behind OldClaim, limit int) (
	all []OldClaim, err error,
) {
	if limit <= 0 {
		return nil, errors.New("inbox: old claims: the limit must be above 0")
	}
	rows, err := db.QueryContext(ctx, claimStatementsOf(d).old, age.Microseconds(), behind.at, behind.at, []byte(behind.Key), limit)
	if err != nil {
		return nil, fmt.Errorf("inbox: old claims: %w", err)
	}
	defer func() {
		if err = errors.Join(err, rows.Close()); err != nil {
			all, err = nil, fmt.Errorf("inbox: old claims: %w", err)
		}
	}()
	for rows.Next() {
		var c OldClaim
		var micros int64
		if err := rows.Scan(&c.Key, &c.at, &micros); err != nil {
			return nil, err
		}
		c.Age = time.Duration(micros) * time.Microsecond
		all = append(all, c)
	}
	return all, rows.Err()
}

const standingClaims = `SELECT claim_key FROM amends_inbox WHERE claim_key IN ({keys})`

// Standing answers which of these keys (at most 1000, of any that Claim takes) have a claim that was committed.
func Standing(ctx context.Context, db *sql.DB, keys []string) (standing map[string]bool, err error) {
	standing = make(map[string]bool, len(keys))
	if len(keys) == 0 {
		return standing, nil
	}
	args := make([]any, 0, len(keys))
	for _, key := range keys {
		args = append(args, []byte(key))
	}
	rows, err := db.QueryContext(ctx, listOf(standingClaims, len(keys)), args...)
	if err != nil {
		return nil, fmt.Errorf("inbox: standing claims: %w", err)
	}
	defer func() {
		if err = errors.Join(err, rows.Close()); err != nil {
			standing, err = nil, fmt.Errorf("inbox: standing claims: %w", err)
		}
	}()
	for rows.Next() {
		var key []byte
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		standing[string(key)] = true
	}
	return standing, rows.Err()
}

// listOf fills a statement's {keys} in with placeholders for n (1 or more).
func listOf(stmt string, n int) string {
	return strings.Replace(stmt, "{keys}", strings.Repeat("?, ", n-1)+"?", 1)
}

// ForgetClaims deletes the claims of these keys (at most 1000), where they are older than an age by the database's
// clock, and answers how many those were. Whoever claims such a key again is first. It is how the guard of package sdk
// forgets; for the claims of messages there is Purge.
func ForgetClaims(ctx context.Context, db *sql.DB, d *outbox.Dialect, age time.Duration, keys []string) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	args := []any{age.Microseconds()}
	for _, key := range keys {
		args = append(args, []byte(key))
	}
	stmt := listOf(claimStatementsOf(d).forget, len(keys))
	for tries := 1; ; tries++ {
		var n int64
		err := outbox.InTx(ctx, db, &sql.TxOptions{Isolation: d.InboxSQL().Isolation}, func(tx *sql.Tx) (err error) {
			n, err = affected(tx.ExecContext(ctx, stmt, args...))
			return err
		})
		if err == nil {
			return int(n), nil
		}
		if tries == claimTries || !d.Retryable(err) || ctx.Err() != nil {
			return 0, fmt.Errorf("inbox: forget claims: %w", err)
		}
	}
}
