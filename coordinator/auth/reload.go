package auth

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// reloadEvery is how often files are looked at, when they are used.
const reloadEvery = time.Second

// reloaded is a value made of files, and made anew when one of them changed.
// There is no goroutine: whoever needs the value looks at the files, at most
// once per reloadEvery. While they are missing or wrong, the last good value
// counts, and the log says so.
type reloaded[T any] struct {
	what  string
	paths []string
	load  func() (T, error)
	log   *slog.Logger

	mu     sync.Mutex
	value  T
	looked time.Time
	seen   []os.FileInfo // nil where there was none
}

// newReloaded makes the value for the first time.
func newReloaded[T any](what string, paths []string, log *slog.Logger, load func() (T, error)) (*reloaded[T], error) {
	r := &reloaded[T]{what: what, paths: paths, load: load, log: log, looked: time.Now()}
	r.seen = r.look()
	value, err := load()
	if err != nil {
		return nil, err
	}
	r.value = value
	return r, nil
}

// get returns the value of the files as they are now, or were a moment ago.
func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.looked) >= reloadEvery {
		r.looked = now
		if seen := r.look(); !r.same(seen) {
			r.seen = seen // also when it fails: it is said once
			r.reload()
		}
	}
	return r.value
}

func (r *reloaded[T]) reload() {
	value, err := r.load()
	if err != nil {
		r.log.Error("auth: what was read before still counts", "of", r.what, "err", err)
		return
	}
	r.value = value
	r.log.Info("auth: read again", "of", r.what)
}

func (r *reloaded[T]) look() []os.FileInfo {
	seen := make([]os.FileInfo, len(r.paths))
	for i, path := range r.paths {
		if info, err := os.Stat(path); err == nil {
			seen[i] = info
		} // else load says what is wrong
	}
	return seen
}

func (r *reloaded[T]) same(now []os.FileInfo) bool {
	for i, a := range r.seen {
		b := now[i]
		if (a == nil) != (b == nil) {
			return false
		}
		if a != nil && (!os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime())) {
			return false
		}
	}
	return true
}
