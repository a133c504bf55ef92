package sdk

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/amends-dev/amends/outbox/inbox"
)

const (
	witnessBatch = 500
	witnessTime  = 10 * time.Second
)

// witness tells, after the commit, whether the claims of handlers stand: where a
// handler let a deadlock pass, say, the database had rolled its transaction back
// and the commit was of nothing. It asks for many calls at once.
type witness struct {
	db *sql.DB

	mu      sync.Mutex
	asking  bool // somebody asks, or is told to
	waiting []*testimony
}

// testimony is what a call waits for.
type testimony struct {
	key  string
	done chan struct{}
	err  error // set before done is closed

	lead chan struct{} // closed: ask for all that wait
}

// stands returns errEnded for a claim that nobody has committed.
func (w *witness) stands(ctx context.Context, key string) error {
	t := &testimony{key: key, done: make(chan struct{}), lead: make(chan struct{})}
	w.mu.Lock()
	w.waiting = append(w.waiting, t)
	if !w.asking {
		w.asking = true
		close(t.lead)
	}
	w.mu.Unlock()
	select { // not for long: who asks has a deadline, and ctx is not its only one
	case <-t.lead:
		w.ask(ctx)
	case <-t.done:
	}
	return t.err
}

// ask asks for those that wait, the caller among them, and lets the next one ask.
func (w *witness) ask(ctx context.Context) {
	w.mu.Lock()
	n := min(len(w.waiting), witnessBatch)
	batch := w.waiting[:n:n]
	w.waiting = w.waiting[n:]
	w.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), witnessTime)
	defer cancel()
	keys := make([]string, 0, n)
	for _, t := range batch {
		keys = append(keys, t.key)
	}
	standing, err := inbox.Standing(ctx, w.db, keys)
	for _, t := range batch {
		if t.err = err; err == nil && !standing[t.key] {
			t.err = errEnded
		}
		close(t.done)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asking = len(w.waiting) > 0; w.asking {
		close(w.waiting[0].lead)
	}
}
