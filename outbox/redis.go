package outbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisConfig configures NewRedisKeys. The zero value has the defaults.
type RedisConfig struct {
	// Prefix begins every key; default "amends:". Programs with different databases need different ones.
	Prefix string
	// AckedTTL is how long acknowledged ids are remembered for the relay's successor; default 10 min.
	AckedTTL time.Duration
	// Window is how long an idempotency key suppresses another message with it; default 24 h.
	Window time.Duration
	// DoneTTL is how long consumers remember what they handled; default 1 h.
	DoneTTL time.Duration
	// Timeout bounds one call of this type; default 100 ms. It is the whole price of a Redis that hangs, once per
	// Pause.
	Timeout time.Duration
	// Pause is how long Redis is left alone after a failure, which answers calls at once; default 1 s.
	Pause time.Duration
	// Logger receives one line when Redis fails and one when it is back; nil means slog.Default().
	Logger *slog.Logger
}

func (c *RedisConfig) complete() error {
	var errs []error
	for name, d := range map[string]time.Duration{
		"AckedTTL": c.AckedTTL, "Window": c.Window, "DoneTTL": c.DoneTTL, "Timeout": c.Timeout, "Pause": c.Pause,
	} {
		if d < 0 || d > 0 && d < time.Millisecond {
			errs = append(errs, fmt.Errorf("%w: field RedisConfig.%s is %v: use at least 1 ms, or 0 for the default",
				ErrConfig, name, d))
		}
	}
	setDefault(&c.Prefix, "amends:")
	setDefault(&c.AckedTTL, 10*time.Minute)
	setDefault(&c.Window, 24*time.Hour)
	setDefault(&c.DoneTTL, time.Hour)
	setDefault(&c.Timeout, 100*time.Millisecond)
	setDefault(&c.Pause, time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(errs...)
}

// ErrRedisAway is the error of calls that did not ask Redis, because it failed a moment ago.
var ErrRedisAway = errors.New("outbox: redis: left alone after a failure")

// RedisKeys is a Keys in Redis, and the done cache of inbox.Consumer. It only saves work: what it forgets (eviction,
// restart, outage) is found in the tables, and it is told of nothing before it has happened. An outage costs one
// Timeout per Pause, whatever the number of callers. Safe for concurrent use.
type RedisKeys struct {
	client redis.UniversalClient
	cfg    RedisConfig

	mu      sync.Mutex
	away    time.Time // not to be asked before
	failing bool
}

var _ Keys = (*RedisKeys)(nil)

// NewRedisKeys uses a client, which stays the caller's to close. A nil cfg is the zero RedisConfig.
func NewRedisKeys(client redis.UniversalClient, cfg *RedisConfig) (*RedisKeys, error) {
	c := RedisConfig{}
	if cfg != nil {
		c = *cfg
	}
	err := c.complete()
	if client == nil {
		err = errors.Join(fmt.Errorf("%w: NewRedisKeys: the client is nil", ErrConfig), err)
	}
	if err != nil {
		return nil, err
	}
	return &RedisKeys{client: client, cfg: c}, nil
}

// fingerprint stands for an id of any length: 16 bytes, too many for two ids ever to share.
type fingerprint [16]byte

func fingerprintOf(id string) fingerprint {
	sum := sha256.Sum256([]byte(id))
	return fingerprint(sum[:16])
}

// ackedBatches is how many of the latest batches of a partition are kept: far more than a relay has under way.
const ackedBatches = 64

// MarkAcked implements Keys: one entry of 16 bytes per id in the partition's list.
func (r *RedisKeys) MarkAcked(ctx context.Context, partition int, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	value := make([]byte, 0, len(ids)*len(fingerprint{}))
	for _, id := range ids {
		f := fingerprintOf(id)
		value = append(value, f[:]...)
	}
	key := r.ackedKey(partition)
	return r.ask(ctx, func(ctx context.Context) error {
		_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.LPush(ctx, key, value)
			p.LTrim(ctx, key, 0, ackedBatches-1)
			p.PExpire(ctx, key, r.cfg.AckedTTL)
			return nil
		})
		return err
	})
}

// Acked implements Keys.
func (r *RedisKeys) Acked(ctx context.Context, partition int, ids []string) (map[string]bool, error) {
	var batches []string
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		batches, err = r.client.LRange(ctx, r.ackedKey(partition), 0, -1).Result()
		return err
	})
	if err != nil || len(batches) == 0 {
		return nil, err
	}
	marked := map[fingerprint]bool{}
	for _, b := range batches {
		for ; len(b) >= len(fingerprint{}); b = b[len(fingerprint{}):] {
			marked[fingerprint([]byte(b[:len(fingerprint{})]))] = true
		}
	}
	out := map[string]bool{}
	for _, id := range ids {
		if marked[fingerprintOf(id)] {
			out[id] = true
		}
	}
	return out, nil
}

func (r *RedisKeys) ackedKey(partition int) string {
	return r.cfg.Prefix + "acked:" + strconv.Itoa(partition)
}

// Seen implements Keys.
func (r *RedisKeys) Seen(ctx context.Context, keys []string) ([]bool, error) {
	return r.exist(ctx, "seen:", keys)
}

// MarkSeen implements Keys. A key that is there already keeps its time: the window begins with the first message.
func (r *RedisKeys) MarkSeen(ctx context.Context, keys []string) error {
	return r.mark(ctx, "seen:", keys, r.cfg.Window)
}

// Done tells, for each id, whether group has handled and committed it lately. False means that nobody remembers.
func (r *RedisKeys) Done(ctx context.Context, group string, ids []string) ([]bool, error) {
	return r.exist(ctx, "done:"+group+":", ids)
}

// MarkDone remembers that group handled ids. Call it after the commit, never before.
func (r *RedisKeys) MarkDone(ctx context.Context, group string, ids []string) error {
	return r.mark(ctx, "done:"+group+":", ids, r.cfg.DoneTTL)
}

// exist asks for all keys in one round trip. One EXISTS per key, so that a cluster can serve them.
func (r *RedisKeys) exist(ctx context.Context, kind string, keys []string) ([]bool, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	out := make([]bool, len(keys))
	err := r.ask(ctx, func(ctx context.Context) error {
		cmds, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, k := range keys {
				p.Exists(ctx, r.cfg.Prefix+kind+k)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, c := range cmds {
			out[i] = c.(*redis.IntCmd).Val() > 0
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (r *RedisKeys) mark(ctx context.Context, kind string, keys []string, ttl time.Duration) error {
	if len(keys) == 0 {
		return nil
	}
	return r.ask(ctx, func(ctx context.Context) error {
		_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, k := range keys {
				p.SetNX(ctx, r.cfg.Prefix+kind+k, "", ttl)
			}
			return nil
		})
		return err
	})
}

// ask runs fn with the timeout, unless Redis failed within the last Pause.
func (r *RedisKeys) ask(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err // the caller's own end says nothing about Redis
	}
	if !r.mayAsk() {
		return ErrRedisAway
	}
	short, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	err := r.bounded(short, fn)
	if err != nil && ctx.Err() != nil {
		return err
	}
	r.note(err)
	if err != nil {
		return fmt.Errorf("outbox: redis: %w", err)
	}
	return nil
}

// bounded returns when ctx ends even where the client does not: go-redis heeds its own timeouts of seconds first,
// unless it was made with ContextTimeoutEnabled. The call itself ends with those.
func (r *RedisKeys) bounded(ctx context.Context, fn func(ctx context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mayAsk is the circuit: after a failure it lets one caller per Pause through.
func (r *RedisKeys) mayAsk() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.failing {
		return true
	}
	now := time.Now()
	if now.Before(r.away) {
		return false
	}
	r.away = now.Add(r.cfg.Pause)
	return true
}

// note keeps the circuit, and logs when an outage begins and ends.
func (r *RedisKeys) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.away = time.Now().Add(r.cfg.Pause)
	}
	if failing := err != nil; failing != r.failing {
		r.failing = failing
		if failing {
			r.cfg.Logger.Warn("Redis fails: going on without it, more slowly", "error", err)
		} else {
			r.cfg.Logger.Info("Redis is back")
		}
	}
}
