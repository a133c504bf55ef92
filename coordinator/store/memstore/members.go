package memstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// forgetAfter is how many times its ttl a member is kept that is gone.
const forgetAfter = 10

// Join implements store.Store.
func (s *Store) Join(ctx context.Context, m store.Member, ttl time.Duration) ([]store.Member, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	end, err := s.begin(ctx, "join")
	if err != nil {
		return nil, err
	}
	defer end()
	now := time.Now()
	m.StartedAt, m.ExpiresAt = micros(m.StartedAt), micros(now.Add(ttl))
	maps.DeleteFunc(s.data.members, func(_ string, o store.Member) bool {
		return o.ExpiresAt.Before(now.Add(-forgetAfter * ttl))
	})
	s.data.members[m.Name] = m
	all := slices.DeleteFunc(slices.Collect(maps.Values(s.data.members)), func(o store.Member) bool {
		return o.Name != m.Name && !now.Before(o.ExpiresAt)
	})
	slices.SortFunc(all, func(a, b store.Member) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Leave implements store.Store.
func (s *Store) Leave(ctx context.Context, name string) error {
	end, err := s.begin(ctx, "leave")
	if err != nil {
		return err
	}
	defer end()
	delete(s.data.members, name)
	return nil
}

// Secret implements store.Store.
func (s *Store) Secret(ctx context.Context) ([]byte, error) {
	end, err := s.begin(ctx, "secret")
	if err != nil {
		return nil, err
	}
	defer end()
	if s.data.secret == nil {
		s.data.secret = make([]byte, store.SecretSize)
		_, _ = rand.Read(s.data.secret) // never fails
	}
	return slices.Clone(s.data.secret), nil
}

// Transfer implements store.Store.
func (s *Store) Transfer(ctx context.Context, leases []store.Lease, to string, ttl time.Duration) ([]store.Lease, error) {
	if to == "" {
		return nil, errors.New("memstore: transfer: the new owner is empty: give a coordinator's name")
	}
	end, err := s.begin(ctx, "transfer")
	if err != nil {
		return nil, err
	}
	defer end()
	var given []store.Lease
	for _, held := range leases {
		if held.Shard < 0 || held.Shard >= len(s.data.leases) {
			continue
		}
		switch l := &s.data.leases[held.Shard]; {
		case l.owner == to && l.epoch == held.Epoch+1: // given before
			given = append(given, store.Lease{Shard: held.Shard, Epoch: l.epoch})
		case l.owner != "" && l.epoch == held.Epoch:
			l.owner, l.expires = to, time.Now().Add(ttl)
			l.epoch++
			given = append(given, store.Lease{Shard: held.Shard, Epoch: l.epoch})
		}
	}
	slices.SortFunc(given, func(a, b store.Lease) int { return cmp.Compare(a.Shard, b.Shard) })
	return given, nil
}
