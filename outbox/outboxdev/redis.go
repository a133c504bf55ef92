package outboxdev

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"golang.org/x/sync/errgroup"
)

// tick is how often keys are looked at for expiry, which miniredis does not do by itself.
const tick = 20 * time.Millisecond

// RedisConfig configures StartRedis. The zero value is a server on a free loopback port.
type RedisConfig struct {
	// Addr is the host and port to listen on; default "127.0.0.1:0", any free port.
	Addr string
	// Logger receives the note that this is for development; nil means slog.Default().
	Logger *slog.Logger
}

// Redis is a running in-process Redis server. Its data is gone when it is closed.
type Redis struct {
	server *miniredis.Miniredis
	addr   string
	stop   chan struct{}
	once   sync.Once
	ticker errgroup.Group
}

// StartRedis starts a server; when it returns, the server answers. Keys expire by themselves, within 20 ms of their
// time. A nil cfg is the zero RedisConfig. The caller must Close it.
func StartRedis(cfg *RedisConfig) (*Redis, error) {
	c := RedisConfig{}
	if cfg != nil {
		c = *cfg
	}
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := checkAddr(c.Addr); err != nil {
		return nil, fmt.Errorf("outboxdev: RedisConfig.Addr: %w", err)
	}
	r := &Redis{server: miniredis.NewMiniRedis(), stop: make(chan struct{})}
	if err := r.server.StartAddr(c.Addr); err != nil {
		return nil, fmt.Errorf("outboxdev: start redis on %s: %w", c.Addr, err)
	}
	r.addr = r.server.Addr()
	r.ticker.Go(r.expire)
	c.Logger.Info("in-process Redis is for development only, and keeps its data in memory", "addr", r.addr)
	return r, nil
}

// expire moves the server's notion of time along with the clock until Close.
func (r *Redis) expire() error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-r.stop:
			return nil
		case now := <-ticker.C:
			r.server.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Addr is the server's host:port, also after Close.
func (r *Redis) Addr() string { return r.addr }

// Close stops the server and its connections. It may be called more than once.
func (r *Redis) Close() {
	r.once.Do(func() {
		close(r.stop)
		_ = r.ticker.Wait() // it ends without an error
		r.server.Close()
	})
}
