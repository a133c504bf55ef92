package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/amends-dev/amends/examples/shop/internal/check"
	"github.com/amends-dev/amends/examples/shop/internal/service"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// world is what the shop's processes find around them. It is the only thing
// that differs between the embedded demo and the one on real servers.
type world struct {
	shop   check.Shop
	prefix string // of topics, consumer group and keys in Redis
	redis  string // host:port

	patience time.Duration // how long the demo waits when nothing moves any more

	coordinator, relay, service []string                   // arguments that say where the databases are
	secrets                     func(name string) []string // the environment of a process: DSNs

	servers []*server // to be restarted in mid-run
	leftOut []string  // what is not, and why
	close   func() error
}

// group is the consumer group of the notification service.
func (w *world) group() string { return w.prefix + service.MailGroup }

// partitions of each topic.
const partitions = 4

// newShop tells the checker what a shop begins with.
func newShop(prefix string) check.Shop {
	s := check.Shop{
		Topics: check.Topics{Placed: prefix + service.TopicPlaced, Confirmed: prefix + service.TopicConfirmed,
			Rejected: prefix + service.TopicRejected},
		Balance: service.OpeningBalance, Stock: map[string]int64{},
	}
	for _, p := range service.Catalogue() {
		s.Stock[p.Name] = int64(p.Stock)
	}
	return s
}

// Embedded tells the checker what an embedded demo in dir, with Kafka at addr,
// left behind.
func Embedded(dir, addr string) check.Shop {
	s := newShop("")
	file := func(path ...string) check.Database {
		return check.SQLite(filepath.Join(append([]string{dir}, path...)...))
	}
	s.Order, s.Inventory = file("order.db"), file("inventory.db")
	s.Payment, s.Notification = file("payment.db"), file("notification.db")
	s.Coordinator = file("coordinator", "amends.db")
	s.Kafka = []string{addr}
	return s
}

// embedded needs nothing: SQLite, and a Kafka and a Redis in this process, which
// are for development only.
func embedded(_ context.Context, d *demo) (*world, error) {
	log, err := os.Create(filepath.Join(d.cfg.Dir, "demo.log"))
	if err != nil {
		return nil, err
	}
	logger := slog.New(slog.NewTextHandler(log, nil))
	topics := map[string]int{}
	for _, t := range []string{service.TopicPlaced, service.TopicConfirmed, service.TopicRejected} {
		topics[t] = partitions
	}
	kafka, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{
		Dir: filepath.Join(d.cfg.Dir, "kafka"), Topics: topics, Logger: logger,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("kafka: %w", err), log.Close())
	}
	redis, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Logger: logger})
	if err != nil {
		kafka.Close()
		return nil, errors.Join(fmt.Errorf("redis: %w", err), log.Close())
	}
	return &world{
		shop: Embedded(d.cfg.Dir, kafka.Addr()), redis: redis.Addr(), patience: 20 * time.Second,
		coordinator: []string{"--data-dir", filepath.Join(d.cfg.Dir, "coordinator")},
		relay:       []string{"--sqlite", filepath.Join(d.cfg.Dir, "order.db"), "--redis", redis.Addr()},
		secrets:     func(string) []string { return nil },
		close: func() error {
			redis.Close()
			kafka.Close()
			return log.Close()
		},
	}, nil
}
