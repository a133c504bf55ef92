package nemesis

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/amends-dev/amends/cmd/torture/internal/proxy"
)

// link is a connection that can be harmed.
type link struct {
	*proxy.Proxy

	what string // for people
}

func flushRedis(ctx context.Context, addr string) error {
	c := redis.NewClient(&redis.Options{Addr: addr})
	return errors.Join(c.FlushAll(context.WithoutCancel(ctx)).Err(), c.Close())
}

// sleep reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
