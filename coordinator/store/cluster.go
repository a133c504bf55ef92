package store

import (
	"context"
	"time"
)

// Member is a coordinator as the others of its cluster see it.
type Member struct {
	Name      string    // the owner of its leases, 1 to MaxMember bytes, compared byte by byte
	Address   string    // host:port where others reach its gRPC services, at most MaxMember bytes; empty: nowhere
	Version   string    // of its program, for people, at most MaxMember bytes
	Draining  bool      // it gives its shards away and takes none
	StartedAt time.Time // by its own clock
	ExpiresAt time.Time // by the store's clock; set by Join, ignored as an argument
}

// Cluster is what coordinators settle among themselves through their store: who
// is there, and who owns which shard.
type Cluster interface {
	// Acquire takes up to limit shards that nobody holds, or whose lease has
	// run out, for owner, until ttl from now; each gets a new, higher epoch.
	// It returns only what it took, by shard. After an error it may have taken
	// some: Renew returns them.
	Acquire(ctx context.Context, owner string, ttl time.Duration, limit int) ([]Lease, error)
	// Renew extends every lease that owner still holds, expired or not so long
	// as nobody took it, and returns them all, by shard.
	Renew(ctx context.Context, owner string, ttl time.Duration) ([]Lease, error)
	// Release gives back every lease of owner at once. Whoever takes one next
	// gets a higher epoch, which shuts out what the old owner still sends.
	Release(ctx context.Context, owner string) error

	// Transfer gives the shards that are still held under these epochs to
	// another owner, until ttl from now, each under a new, higher epoch, and
	// returns those that it gave, by shard. A shard whose epoch is another, or
	// that was released, is left alone. It is idempotent: what an earlier call
	// with the same arguments gave (its reply was lost) is returned again, as
	// long as the new owner holds it under that epoch.
	Transfer(ctx context.Context, leases []Lease, to string, ttl time.Duration) ([]Lease, error)

	// Join announces a coordinator to the others, or renews or changes what it
	// announced before, until ttl from now. It returns all whose time has not
	// run out, by name, m among them, and may forget those whose time ran out
	// long ago. Members and leases know nothing of each other.
	Join(ctx context.Context, m Member, ttl time.Duration) ([]Member, error)
	// Leave ends a member's time at once. To leave twice is harmless.
	Leave(ctx context.Context, name string) error
	// Secret returns SecretSize random bytes, made when they are first asked
	// for and the same ever after for everybody: with them the members of a
	// cluster prove to each other that they share the store.
	Secret(ctx context.Context) ([]byte, error)

	// Leases returns who holds which shard, by shard, those included whose
	// lease has run out and whom nobody has followed.
	Leases(ctx context.Context) ([]Holding, error)
}
