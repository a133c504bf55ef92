package engine

import (
	"sync"

	"github.com/amends-dev/amends/coordinator/store"
)

// watch tells those who asked about durable transitions. What is told is a
// hint: whoever subscribes reads the store once afterwards.
type watch struct {
	mu   sync.Mutex
	subs map[string][]chan store.Record
}

// subscribe returns a channel that holds the latest durable record of gid
// since, and a function that ends the subscription.
func (w *watch) subscribe(gid string) (<-chan store.Record, func()) {
	ch := make(chan store.Record, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.subs == nil {
		w.subs = map[string][]chan store.Record{}
	}
	w.subs[gid] = append(w.subs[gid], ch)
	return ch, func() { w.remove(gid, ch) }
}

func (w *watch) remove(gid string, ch chan store.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	subs := w.subs[gid]
	for i, c := range subs {
		if c == ch {
			subs = append(subs[:i:i], subs[i+1:]...)
			break
		}
	}
	if len(subs) == 0 {
		delete(w.subs, gid)
	} else {
		w.subs[gid] = subs
	}
}

// lose tells those who asked about gid that its shard has left.
func (w *watch) lose(gid string) { w.tell(gid, store.Record{}) }

func (w *watch) publish(rec store.Record) { w.tell(rec.GID, rec) }

func (w *watch) tell(gid string, rec store.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range w.subs[gid] {
		select {
		case <-ch: // the latest wins
		default:
		}
		ch <- rec
	}
}
