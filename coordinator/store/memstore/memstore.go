package memstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// DefaultShards is the number of shards when Config does not say.
const DefaultShards = 256

// Config sets a store up. nil means all defaults.
type Config struct {
	// Shards is the number of shards. 0 or less means DefaultShards.
	Shards int
}

// Store is a store.Store in memory: one handle on data that outlives it.
type Store struct {
	data   *data
	mu     sync.RWMutex // held for reading during a call, so that Close waits
	closed bool
}

var _ store.Store = (*Store)(nil)

// data is what survives a handle.
type data struct {
	mu      sync.Mutex
	leases  []lease
	members map[string]store.Member
	secret  []byte // nil: nobody has asked for it
	rows    map[string]store.Record
	events  map[string][]store.Event
}

type lease struct {
	owner   string // empty: nobody
	epoch   int64
	expires time.Time
}

// New creates an empty store.
func New(cfg *Config) *Store {
	shards := DefaultShards
	if cfg != nil && cfg.Shards > 0 {
		shards = cfg.Shards
	}
	return &Store{data: &data{
		leases:  make([]lease, shards),
		members: make(map[string]store.Member),
		rows:    make(map[string]store.Record),
		events:  make(map[string][]store.Event),
	}}
}

// Reopen returns another handle on the same data, leases included. Close the
// old one and Reopen to play the crash of a process; keep both open to play
// two coordinators on one database.
func (s *Store) Reopen() *Store { return &Store{data: s.data} }

// Close implements store.Store: it ends this handle and leaves the data for
// Reopen.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// begin admits a call; the caller runs what it returns at the end.
func (s *Store) begin(ctx context.Context, op string) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memstore: %s: %w", op, err)
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, fmt.Errorf("memstore: %s: %w", op, store.ErrClosed)
	}
	s.data.mu.Lock()
	return func() {
		s.data.mu.Unlock()
		s.mu.RUnlock()
	}, nil
}

// Shards implements store.Store.
func (s *Store) Shards(ctx context.Context) (int, error) {
	end, err := s.begin(ctx, "shards")
	if err != nil {
		return 0, err
	}
	defer end()
	return len(s.data.leases), nil
}

// Leases implements store.Store.
func (s *Store) Leases(ctx context.Context) ([]store.Holding, error) {
	end, err := s.begin(ctx, "leases")
	if err != nil {
		return nil, err
	}
	defer end()
	all := make([]store.Holding, len(s.data.leases))
	for i, l := range s.data.leases {
		all[i] = store.Holding{Lease: store.Lease{Shard: i, Epoch: l.epoch}, Owner: l.owner, ExpiresAt: micros(l.expires)}
	}
	return all, nil
}

// Acquire implements store.Store.
func (s *Store) Acquire(ctx context.Context, owner string, ttl time.Duration, limit int) ([]store.Lease, error) {
	if owner == "" {
		return nil, errors.New("memstore: acquire: owner is empty: give the coordinator's name")
	}
	end, err := s.begin(ctx, "acquire")
	if err != nil {
		return nil, err
	}
	defer end()
	now := time.Now()
	var taken []store.Lease
	for i := range s.data.leases {
		l := &s.data.leases[i]
		if len(taken) >= limit {
			break
		}
		if l.owner != "" && now.Before(l.expires) {
			continue
		}
		l.owner, l.expires = owner, now.Add(ttl)
		l.epoch++
		taken = append(taken, store.Lease{Shard: i, Epoch: l.epoch})
	}
	return taken, nil
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, owner string, ttl time.Duration) ([]store.Lease, error) {
	if owner == "" {
		return nil, errors.New("memstore: renew: owner is empty: give the coordinator's name")
	}
	end, err := s.begin(ctx, "renew")
	if err != nil {
		return nil, err
	}
	defer end()
	var held []store.Lease
	for i := range s.data.leases {
		if l := &s.data.leases[i]; l.owner == owner {
			l.expires = time.Now().Add(ttl)
			held = append(held, store.Lease{Shard: i, Epoch: l.epoch})
		}
	}
	return held, nil
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, owner string) error {
	end, err := s.begin(ctx, "release")
	if err != nil {
		return err
	}
	defer end()
	for i := range s.data.leases {
		if l := &s.data.leases[i]; l.owner == owner { // also those of nobody, which changes nothing
			l.owner, l.expires = "", time.Time{}
		}
	}
	return nil
}
