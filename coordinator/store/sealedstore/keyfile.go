package sealedstore

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often a file of keys is looked at, when keys are needed.
const lookEvery = time.Second

// OpenKeys reads a file of keys, as ReadKeys does, and again within a second of
// a change when a key is needed. While the file is missing or wrong, or gives
// the id of a key to another one, the keys that were read before still count,
// and the log says so. A nil log is slog.Default().
func OpenKeys(path string, log *slog.Logger) (*Keys, error) {
	if log == nil {
		log = slog.Default()
	}
	f := &keyFile{path: path, log: log, looked: time.Now()}
	f.seen, _ = os.Stat(path) // ReadKeys says what is wrong with it
	k, err := ReadKeys(path)
	if err != nil {
		return nil, err
	}
	f.now = k
	return &Keys{file: f}, nil
}

// keyFile is a file that is looked at by whoever needs a key.
type keyFile struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	now    *Keys
	looked time.Time
	seen   os.FileInfo // nil: there was none
}

func (f *keyFile) current() *Keys {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.looked) < lookEvery {
		return f.now
	}
	f.looked = now
	info, err := os.Stat(f.path)
	if err != nil {
		info = nil
	}
	if same(f.seen, info) {
		return f.now
	}
	f.seen = info // also when it is wrong: that is said once
	next, err := ReadKeys(f.path)
	if err == nil {
		err = next.follows(f.now)
	}
	if err != nil {
		f.log.Error("sealedstore: the keys that were read before still count", "err", err)
		return f.now
	}
	f.now = next
	f.log.Info("sealedstore: keys read again", "seals", next.list[0].id, "keys", next.ids())
	return f.now
}

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// follows refuses keys that would make what an id has sealed unreadable.
func (k *Keys) follows(before *Keys) error {
	for _, was := range before.list {
		if is, err := k.find(was.id); err == nil && !bytes.Equal(is.secret, was.secret) {
			return fmt.Errorf("sealedstore: keys: id %q has another key than before: give the new one an id of its own", was.id)
		}
	}
	return nil
}

func (k *Keys) ids() []string {
	ids := make([]string, len(k.list))
	for i := range k.list {
		ids[i] = k.list[i].id
	}
	return ids
}
