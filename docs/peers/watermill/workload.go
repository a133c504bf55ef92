package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	sharedKeys = 6 // between the writers
	rollbacks  = 10
	slow       = 10 // of a hundred transactions stay open for a while after they wrote
	slowest    = 30 * time.Millisecond
)

// workload is writers that write the next message of a key in the transaction
// that counts it. A key's row is locked meanwhile, so the order of a key's
// messages is that of the commits.
type workload struct {
	system system
	db     *sql.DB
	topic  string
	failed atomic.Int64
}

func prepare(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "CREATE TABLE counters (k VARCHAR(40) PRIMARY KEY, n INT NOT NULL)")
	return err
}

func (w *workload) run(ctx context.Context, writers int, length time.Duration) error {
	keys := make([]string, 0, sharedKeys+writers)
	for k := range sharedKeys {
		keys = append(keys, fmt.Sprintf("shared-%d", k))
	}
	for n := range writers {
		keys = append(keys, fmt.Sprintf("own-%d", n))
	}
	for _, k := range keys {
		if _, err := w.db.ExecContext(ctx, "INSERT INTO counters (k, n) VALUES (?, 0)", k); err != nil {
			return err
		}
	}
	end := time.Now().Add(length)
	g, ctx := errgroup.WithContext(ctx)
	for n := range writers {
		g.Go(func() error {
			rnd := rand.New(rand.NewPCG(uint64(n), 7))
			for time.Now().Before(end) && ctx.Err() == nil {
				key := keys[sharedKeys+n]
				if rnd.IntN(2) == 0 {
					key = keys[rnd.IntN(sharedKeys)]
				}
				if err := w.transact(ctx, rnd, key); err != nil {
					w.failed.Add(1) // a deadlock, say: it was rolled back, and is not counted
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (w *workload) transact(ctx context.Context, rnd *rand.Rand, key string) (err error) {
	tx, err := w.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	m := message{topic: w.topic, key: key}
	if _, err := tx.ExecContext(ctx, "UPDATE counters SET n = n + 1 WHERE k = ?", key); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, "SELECT n FROM counters WHERE k = ?", key).Scan(&m.n); err != nil {
		return err
	}
	m.id = fmt.Sprintf("%s/%d", key, m.n)
	if err := w.system.write(ctx, tx, m); err != nil {
		return err
	}
	if rnd.IntN(100) < slow {
		time.Sleep(rand.N(slowest))
	}
	if rnd.IntN(100) < rollbacks {
		return tx.Rollback()
	}
	return tx.Commit()
}

// result is what came of a workload.
type result struct {
	committed, logged, lost, disordered, doubled int
	failed                                       int64
	last                                         time.Duration // after the first write, the log grew for the last time
}

// judge holds the log against the counters in the database: of each key the
// messages 1 to n were committed.
func (w *workload) judge(ctx context.Context, l *log, began time.Time) (result, error) {
	r := result{failed: w.failed.Load(), last: l.grew.Sub(began)}
	rows, err := w.db.QueryContext(ctx, "SELECT k, n FROM counters")
	if err != nil {
		return r, err
	}
	defer rows.Close() // its error is in rows.Err
	for rows.Next() {
		var key string
		var n int
		if err := rows.Scan(&key, &n); err != nil {
			return r, err
		}
		r.committed += n
		seen := map[int]bool{}
		highest := 0
		for _, got := range l.byKey[key] {
			r.logged++
			switch {
			case seen[got]:
				r.doubled++
				continue
			case got < highest:
				r.disordered++
			}
			seen[got], highest = true, max(highest, got)
		}
		for i := 1; i <= n; i++ {
			if !seen[i] {
				r.lost++
			}
		}
	}
	return r, rows.Err()
}

// log is what a topic holds, read as it grows.
type log struct {
	mu    sync.Mutex
	byKey map[string][]int
	grew  time.Time
	close func()
}
