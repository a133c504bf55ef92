package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/amends-dev/amends/coordinator/store"
)

const loadTransactions = `SELECT ` + allColumns + ` FROM amends_transactions t WHERE t.gid IN `

// loadSizes are the sizes, ascending, of the statements that load several
// transactions: the last is the largest group.
var loadSizes = [...]int{1, 2, 4, 8, 16, 32, 64}

// loads gathers the transactions that callers ask for while the database is
// busy with those before them, and asks for them together: to find one costs
// a server much less than to be asked.
type loads struct {
	statements map[int]*sql.Stmt // by how many they load

	mu      sync.Mutex
	busy    bool // a load is under way
	waiting []*loading
	running sync.WaitGroup // groups
}

// loading is one call of Load.
type loading struct {
	gid  string
	done chan struct{}
	rec  store.Record
	err  error
}

func (l *loads) prepare(ctx context.Context, db *sql.DB) error {
	l.statements = make(map[int]*sql.Stmt, len(loadSizes))
	for _, n := range loadSizes {
		stmt, err := db.PrepareContext(ctx, loadTransactions+tuple(n))
		if err != nil {
			return err
		}
		l.statements[n] = stmt
	}
	return nil
}

// Load implements store.Store.
func (s *Store) Load(ctx context.Context, gid string) (store.Record, error) {
	one := &loading{gid: gid, done: make(chan struct{})}
	if s.loads.join(one) {
		defer s.loadNext()
		s.loadGroup(ctx, []*loading{one})
		return one.rec, one.err
	}
	select {
	case <-one.done:
		return one.rec, one.err
	case <-ctx.Done():
		return store.Record{}, fmt.Errorf("sqlstore: load: %w", ctx.Err())
	}
}

// join reports whether nothing is under way, so that the caller has to load by
// itself, and afterwards to see to those who came meanwhile.
func (l *loads) join(one *loading) (alone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy {
		l.busy = true
		return true
	}
	l.waiting = append(l.waiting, one)
	return false
}

// loadNext loads what has gathered, and so on until nothing has.
func (s *Store) loadNext() {
	l := &s.loads
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.waiting), loadSizes[len(loadSizes)-1])
	if n == 0 {
		l.busy = false
		return
	}
	group := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	l.running.Go(func() {
		// No caller's context: none of them may end the others' load.
		s.loadGroup(context.Background(), group)
		s.loadNext()
	})
}

// loadGroup loads and answers.
func (s *Store) loadGroup(ctx context.Context, group []*loading) {
	found := make(map[string]store.Record, len(group))
	err := s.read(ctx, "load", func(*sql.DB) error { return s.loads.query(ctx, group, found) })
	for _, one := range group {
		rec, ok := found[one.gid]
		switch {
		case err != nil:
			one.err = err
		case !ok:
			one.err = fmt.Errorf("sqlstore: load: transaction %q: %w", one.gid, store.ErrNotFound)
		default:
			one.rec = rec
		}
		close(one.done)
	}
}

func (l *loads) query(ctx context.Context, group []*loading, found map[string]store.Record) (err error) {
	clear(found)
	size := loadSizes[0]
	for i := 1; size < len(group); i++ {
		size = loadSizes[i]
	}
	gids := make([]any, size)
	for i := range gids {
		gids[i] = group[min(i, len(group)-1)].gid
	}
	rows, err := l.statements[size].QueryContext(ctx, gids...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r store.Record
		if err := scanRecord(rows, &r, true); err != nil {
			return err
		}
		found[r.GID] = r
	}
	return rows.Err()
}
