package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// Acquire implements store.Store.
func (s *memberStore) Acquire(ctx context.Context, owner string, ttl time.Duration, limit int) (l []store.Lease, err error) {
	err = s.through(ctx, "acquire", func(ctx context.Context) (err error) {
		s.w.leases.Lock()
		defer s.w.leases.Unlock()
		l, err = s.Store.Acquire(ctx, owner, ttl, limit)
		s.w.leased(s.p, "takes", l)
		return err
	})
	return orNone(l, err), err
}

// Renew implements store.Store.
func (s *memberStore) Renew(ctx context.Context, owner string, ttl time.Duration) (l []store.Lease, err error) {
	err = s.through(ctx, "renew", func(ctx context.Context) (err error) {
		l, err = s.Store.Renew(ctx, owner, ttl)
		return err
	})
	return orNone(l, err), err
}

// Release implements store.Store.
func (s *memberStore) Release(ctx context.Context, owner string) error {
	return s.through(ctx, "release", func(ctx context.Context) error {
		s.w.say(s.p.id, "gives its shards back")
		return s.Store.Release(ctx, owner)
	})
}

// Transfer implements store.Store.
func (s *memberStore) Transfer(ctx context.Context, leases []store.Lease, to string, ttl time.Duration) (l []store.Lease, err error) {
	err = s.through(ctx, "transfer", func(ctx context.Context) (err error) {
		s.w.leases.Lock()
		defer s.w.leases.Unlock()
		l, err = s.Store.Transfer(ctx, leases, to, ttl)
		s.w.transferred(s.p, to, l)
		return err
	})
	return orNone(l, err), err
}

// Join implements store.Store.
func (s *memberStore) Join(ctx context.Context, m store.Member, ttl time.Duration) (all []store.Member, err error) {
	err = s.through(ctx, "join", func(ctx context.Context) (err error) {
		all, err = s.Store.Join(ctx, m, ttl)
		return err
	})
	for i := range all {
		all[i].ExpiresAt = move(all[i].ExpiresAt, s.skew)
	}
	return orNone(all, err), err
}

// Leave implements store.Store.
func (s *memberStore) Leave(ctx context.Context, name string) error {
	return s.through(ctx, "leave", func(ctx context.Context) error { return s.Store.Leave(ctx, name) })
}

// Leases implements store.Store.
func (s *memberStore) Leases(ctx context.Context) (all []store.Holding, err error) {
	err = s.through(ctx, "leases", func(ctx context.Context) (err error) {
		all, err = s.Store.Leases(ctx)
		return err
	})
	for i := range all {
		all[i].ExpiresAt = move(all[i].ExpiresAt, s.skew)
	}
	return orNone(all, err), err
}

func orNone[T any](l []T, err error) []T {
	if err != nil {
		return nil
	}
	return l
}

// leased notes the epochs that were handed out, which only grow. The caller
// holds w.leases.
func (w *world) leased(p *process, how string, leases []store.Lease) {
	if len(leases) == 0 {
		return
	}
	text := ""
	for _, l := range leases {
		if l.Epoch <= w.epochs[l.Shard] {
			w.violation("shard %d was given out twice under epoch %d", l.Shard, l.Epoch)
		}
		w.epochs[l.Shard] = l.Epoch
		text += fmt.Sprintf(" %d@%d", l.Shard, l.Epoch)
	}
	w.say(p.id, "%s shards%s", how, text)
}

// transferred is leased for shards that another gets, and may get again when the
// answer was lost. The caller holds w.leases.
func (w *world) transferred(p *process, to string, leases []store.Lease) {
	var fresh []store.Lease
	for _, l := range leases {
		if l.Epoch != w.epochs[l.Shard] {
			fresh = append(fresh, l)
		}
	}
	w.leased(p, "gives "+to[:2], fresh)
}

// committed sees that who wrote was the last to whom the shard was given. The
// caller holds w.leases.
func (w *world) committed(p *process, b store.Batch) {
	for _, l := range b.Leases {
		if l.Epoch != w.epochs[l.Shard] && len(b.Writes) > 0 {
			w.violation("%s wrote shard %d under epoch %d, but it was given out under %d", p.id, l.Shard, l.Epoch, w.epochs[l.Shard])
		}
	}
}
