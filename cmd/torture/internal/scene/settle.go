package scene

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
)

const (
	openSQL = `SELECT gid, name, state = 6, paused FROM amends_transactions
WHERE finished_at IS NULL AND kind IN ('saga', 'tcc') ORDER BY newest LIMIT 1000`
	entriesSQL = `SELECT count(*) FROM entries`
	outboxSQL  = `SELECT (SELECT count(*) FROM amends_outbox_0) + (SELECT count(*) FROM amends_outbox_1) +
  (SELECT count(*) FROM amends_outbox_2) + (SELECT count(*) FROM amends_outbox_3) +
  (SELECT count(*) FROM amends_outbox_4) + (SELECT count(*) FROM amends_outbox_aside)`
	seenSQL = `SELECT count(*) FROM seen`

	settleEvery = 250 * time.Millisecond
	nudgeEvery  = 3 * time.Second
)

// open is a transaction that has not ended.
type open struct {
	gid, name      string
	parked, paused bool
}

// settle waits until all is at rest. What operators paused goes on, and what
// waits for one is given up, where that was to be expected. still says what is
// not at rest in the end; empty: all is.
func (a *attack) settle(ctx context.Context) (still string, err error) {
	soon, cancel := context.WithTimeout(ctx, a.Rest)
	defer cancel()
	nudged := map[string]time.Time{}
	for n := 0; ; n++ {
		var opens []open
		if opens, still, err = a.unrest(soon); still == "" && err == nil {
			return "", nil
		}
		if soon.Err() != nil {
			return still, ctx.Err()
		}
		for _, o := range opens {
			if time.Since(nudged[o.gid]) < nudgeEvery || !o.paused && !(o.parked && o.name == bank.OperatedName) {
				continue
			}
			nudged[o.gid] = time.Now()
			if err := a.nudge(soon, o, n); err != nil {
				a.say("%s does not go on: %v", o.gid, err)
			}
		}
		select {
		case <-soon.Done():
		case <-time.After(settleEvery):
		}
	}
}

func (a *attack) nudge(ctx context.Context, o open, n int) error {
	ctx, cancel := context.WithTimeout(ctx, nudgeEvery)
	defer cancel()
	request := fmt.Sprintf("rest-%d-%s", n, o.gid)
	if o.paused {
		return a.load.Resume(ctx, o.gid, request)
	}
	return a.load.Abandon(ctx, o.gid, request)
}

// unrest says what is not at rest.
func (a *attack) unrest(ctx context.Context) (opens []open, still string, err error) {
	rows, err := a.db.QueryContext(ctx, openSQL)
	if err != nil {
		return nil, "the database cannot be asked: " + err.Error(), err
	}
	defer rows.Close() // its error is that of Err
	for rows.Next() {
		var o open
		if err := rows.Scan(&o.gid, &o.name, &o.parked, &o.paused); err != nil {
			return nil, "the database cannot be asked", err
		}
		opens = append(opens, o)
	}
	var entries, waiting, seen int64
	err = errors.Join(rows.Err(), number(ctx, a.notes, entriesSQL, &entries), number(ctx, a.notes, outboxSQL, &waiting),
		number(ctx, a.reader, seenSQL, &seen))
	if err != nil {
		return opens, "the databases cannot be asked", err
	}
	if len(opens) > 0 || waiting > 0 || seen < entries {
		still = fmt.Sprintf("%d transactions, %d messages in the outbox, %d of %d entries handled", len(opens), waiting, seen, entries)
		for _, o := range opens[:min(len(opens), 5)] {
			still += fmt.Sprintf("; %s (parked: %v, paused: %v)", o.gid, o.parked, o.paused)
		}
	}
	return opens, still, nil
}

func number(ctx context.Context, db *sql.DB, query string, to *int64) error {
	return db.QueryRowContext(ctx, query).Scan(to)
}
