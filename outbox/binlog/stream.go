package binlog

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// Why streams end.
var (
	errBehind = errors.New("binlog: more is committed than the relay takes")
	errDown   = errors.New("binlog: the log is not being read")
	errClosed = errors.New("binlog: the stream is closed")
	errLag    = errors.New("binlog: reading is behind the end of the log")
	errRows   = errors.New("binlog: a transaction did more to the outbox's table than to insert and delete rows")
)

// stream is one partition's queue between the reader of the log and the relay.
type stream struct {
	s    *Source
	part int
	wake func()

	mu      sync.Mutex
	queue   []outbox.SourceTx
	rows    int
	bytes   int
	room    chan struct{} // receives when the relay has taken something
	err     error         // why nothing more comes
	begun   bool          // the last transaction in it goes on
	read    position      // up to here it has everything; ModeLog
	joined  bool          // the session began where it, too, finds all that it needs; ModeLog
	aligned bool          // what comes is behind read; ModeLog
	settled position      // up to here nothing is needed any more; ModeLog
}

// Next implements outbox.SourceStream.
func (st *stream) Next() ([]outbox.SourceTx, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil && (len(st.queue) == 0 || st.s.cfg.Mode == ModeTable) {
		return nil, st.err
	}
	txs := st.queue
	st.queue, st.rows, st.bytes = nil, 0, 0
	select {
	case st.room <- struct{}{}:
	default: // the reader knows already
	}
	return txs, nil
}

// Settled implements outbox.SourceStream.
func (st *stream) Settled(text string) {
	if st.s.cfg.Mode == ModeTable {
		return
	}
	p, err := parsePosition(text)
	if err != nil {
		return // Open has parsed the first one, and the others are our own
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.settled = p
}

// Close implements outbox.SourceStream.
func (st *stream) Close() {
	st.fail(errClosed)
	st.s.forget(st)
}

// fail ends the stream behind what is in its queue.
func (st *stream) fail(err error) {
	st.mu.Lock()
	if st.err == nil {
		st.err = err
	}
	st.mu.Unlock()
	st.wake()
}

// reached tells whether the transaction under way is behind what the stream has.
func (st *stream) reached(r *reader) bool {
	if st.s.cfg.Mode == ModeTable {
		return true
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.joined {
		return false // the session began without it, and is about to end
	}
	if !st.aligned && !st.read.has(r.gtid, r.place) {
		st.aligned = true
	}
	return st.aligned
}

// put adds a transaction, or a part of one. When there is no room for it, it
// waits a little in ModeLog, and then ends the stream.
func (st *stream) put(ctx context.Context, tx outbox.SourceTx, bytes int) {
	if st.offer(tx, bytes) {
		return
	}
	if st.s.cfg.Mode == ModeLog {
		timer := time.NewTimer(st.s.cfg.Heartbeat)
		defer timer.Stop()
		for waiting := true; waiting; {
			select {
			case <-st.room:
				if st.offer(tx, bytes) {
					return
				}
			case <-timer.C:
				waiting = false
			case <-ctx.Done():
				waiting = false
			}
		}
	}
	st.fail(errBehind)
}

// offer adds a transaction if there is room, and reports whether that was so, or
// the stream has ended. One without rows takes the place of one before it.
func (st *stream) offer(tx outbox.SourceTx, bytes int) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return true
	}
	if n := len(st.queue); len(tx.Rows) == 0 && n > 0 && st.queue[n-1].Position != "" {
		st.queue[n-1].Position = tx.Position
		return true
	}
	if len(st.queue) > 0 && (st.rows+len(tx.Rows) > st.s.cfg.MaxRows || st.bytes+bytes > st.s.cfg.MaxBytes) {
		return false
	}
	st.queue, st.begun = append(st.queue, tx), tx.Position == ""
	st.rows += len(tx.Rows)
	st.bytes += bytes
	if len(tx.Rows) > 0 {
		st.wake()
	}
	return true
}
