package outboxtest

import (
	"context"
	"sync"

	"github.com/amends-dev/amends/outbox"
)

// Log is a Publisher that keeps what it acknowledges. The zero value
// acknowledges everything. Safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	msgs []outbox.Message
	hook func(ctx context.Context, msgs []outbox.Message) []error
}

// SetHook makes the log ask a function first: what it answers nil for is
// acknowledged. It gets the same answers as a Publisher may give. nil ends it.
func (l *Log) SetHook(hook func(ctx context.Context, msgs []outbox.Message) []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = hook
}

// Publish implements outbox.Publisher.
func (l *Log) Publish(ctx context.Context, msgs []outbox.Message) []error {
	l.mu.Lock()
	hook := l.hook
	l.mu.Unlock()
	var errs []error
	if hook != nil {
		errs = hook(ctx, msgs)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, m := range msgs {
		if errs == nil || i < len(errs) && errs[i] == nil {
			l.msgs = append(l.msgs, m)
		}
	}
	return errs
}

// Messages is what was acknowledged so far, in order.
func (l *Log) Messages() []outbox.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]outbox.Message(nil), l.msgs...)
}

// Len is the number of messages acknowledged so far.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.msgs)
}

// Keys is outbox.Keys in memory, without expiry. The zero value is ready. Safe
// for concurrent use.
type Keys struct {
	mu    sync.Mutex
	acked map[string]bool
	seen  map[string]bool
	err   error
}

// Fail makes each call answer err; nil ends it.
func (k *Keys) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// MarkAcked implements outbox.Keys.
func (k *Keys) MarkAcked(_ context.Context, _ int, ids []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.add(&k.acked, ids)
}

// Acked implements outbox.Keys.
func (k *Keys) Acked(_ context.Context, _ int, ids []string) (map[string]bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]bool{}
	for _, id := range ids {
		out[id] = k.acked[id]
	}
	return out, k.err
}

// Seen implements outbox.Keys.
func (k *Keys) Seen(_ context.Context, keys []string) ([]bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]bool, len(keys))
	for i, key := range keys {
		out[i] = k.seen[key]
	}
	return out, k.err
}

// MarkSeen implements outbox.Keys.
func (k *Keys) MarkSeen(_ context.Context, keys []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.add(&k.seen, keys)
}

func (k *Keys) add(set *map[string]bool, names []string) error {
	if k.err != nil {
		return k.err
	}
	if *set == nil {
		*set = map[string]bool{}
	}
	for _, n := range names {
		(*set)[n] = true
	}
	return nil
}
