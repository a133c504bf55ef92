package outbox

import "context"

// Keys is the relay's memory outside of the database; NewRedisKeys makes one.
// It only saves duplicates: an error or a miss always falls through to the
// table, and is counted and logged once per outage. The relay gives each call a
// short time. Safe for concurrent use.
type Keys interface {
	// MarkAcked remembers ids of a partition that were acknowledged and are about
	// to be deleted, as one compact value per batch with a time to live.
	MarkAcked(ctx context.Context, partition int, ids []string) error
	// Acked tells which of the ids of a partition were marked.
	Acked(ctx context.Context, partition int, ids []string) (map[string]bool, error)
	// Seen tells, for each idempotency key, whether it was marked within the window.
	Seen(ctx context.Context, keys []string) ([]bool, error)
	// MarkSeen remembers idempotency keys of acknowledged messages. It is called
	// after the acknowledgement and never before.
	MarkSeen(ctx context.Context, keys []string) error
}
