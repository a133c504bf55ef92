package demo

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/services"
	"github.com/amends-dev/amends/examples/shop/internal/check"
	"github.com/amends-dev/amends/examples/shop/internal/service"
)

const (
	// A coordinator that was killed holds its leases on MySQL that long.
	leaseTTL = "3s"
	// prepareTime bounds what is done to a server before the shop opens, and after it closed.
	prepareTime = 30 * time.Second
)

// onServers stands on MySQL, Redis and Kafka: those that the environment names,
// else servers of the demo's own on loopback.
func onServers(ctx context.Context, d *demo) (_ *world, err error) {
	r := &realWorld{demo: d, addr: map[services.Service]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	prefix := "amends_shop_" + strings.ToLower(rand.Text()[:8]) + "_"
	d.console.say(plain, "databases and topics are named %s…", prefix)
	w := &world{
		shop: newShop(prefix), prefix: prefix, redis: r.addr[services.Redis],
		coordinator: []string{"--lease-ttl", leaseTTL}, service: []string{"--mysql"}, servers: r.own, leftOut: r.leftOut,
		patience: time.Minute, close: r.close,
	}
	if os.Getenv(services.Redis.Env()) == "" {
		// The relay's keys in a Redis of others would outlive our databases: an
		// order of the next run would seem to be one of this run, and be dropped.
		w.relay = []string{"--redis", w.redis}
	}
	w.shop.Kafka = strings.Split(r.addr[services.Kafka], ",")
	if err := r.databases(ctx, w); err != nil {
		return nil, fmt.Errorf("%s: %w", services.MySQL.Title(), err)
	}
	if err := r.topics(ctx, w); err != nil {
		return nil, fmt.Errorf("%s: %w", services.Kafka.Title(), err)
	}
	return w, nil
}

type realWorld struct {
	*demo
	addr    map[services.Service]string
	own     []*server
	leftOut []string
	clean   []func(context.Context) error // takes away what was made on servers of others
}

// start finds out where the servers are, and starts those that are nowhere.
func (r *realWorld) start(ctx context.Context) error {
	var g errgroup.Group
	for _, s := range services.Core {
		if addr := os.Getenv(s.Env()); addr != "" {
			if err := services.Ping(ctx, s, addr); err != nil {
				return fmt.Errorf("%s is set, but %w", s.Env(), err)
			}
			r.addr[s] = addr
			r.leftOut = append(r.leftOut, fmt.Sprintf("%s is not restarted: %s names it, so it is not the demo's", s.Title(), s.Env()))
			continue
		}
		p, err := services.New(ctx, s)
		var missing *services.MissingError
		if errors.As(err, &missing) {
			return fmt.Errorf("no %s: %w; or set %s; or run `make services`, which installs what it may", s.Title(), err, s.Env())
		}
		if err != nil {
			return err
		}
		r.addr[s] = p.Addr
		own := &server{p: p, root: r.cfg.Dir}
		if root, err := services.Root("."); err == nil {
			own.root = root // `make services` sweeps there, should the demo be killed
		}
		r.own = append(r.own, own)
		if r.cfg.Keep {
			r.console.say(plain, "the data of %s stays in %s", s.Title(), p.Dir)
		}
		g.Go(func() error { return own.start(ctx) })
	}
	return g.Wait()
}

// databases makes one for each service and one for the coordinator.
func (r *realWorld) databases(ctx context.Context, w *world) error {
	conf, err := mysql.ParseDSN(r.addr[services.MySQL])
	if err != nil {
		return err
	}
	conf.DBName, conf.Logger = "", &mysql.NopLogger{}
	in := func(name string) string { return w.prefix + name }
	w.secrets = func(name string) []string {
		if name == relayName { // which relays the order service's outbox
			name = service.Order
		}
		c := conf.Clone()
		c.DBName = in(name)
		return []string{services.MySQL.Env() + "=" + c.FormatDSN()}
	}
	for name, database := range map[string]*check.Database{
		service.Order: &w.shop.Order, service.Inventory: &w.shop.Inventory, service.Payment: &w.shop.Payment,
		service.Notification: &w.shop.Notification, coordinatorName: &w.shop.Coordinator,
	} {
		*database = check.MySQL(conf, in(name))
		if err := administer(ctx, conf, "CREATE DATABASE "+in(name)+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
			return err
		}
		r.clean = append(r.clean, func(ctx context.Context) error {
			return administer(ctx, conf, "DROP DATABASE IF EXISTS "+in(name))
		})
	}
	return nil
}

// administer runs a statement about a database, whose name cannot be bound and
// has letters, digits and underscores only.
func administer(ctx context.Context, conf *mysql.Config, statement string) error {
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

// topics makes those of the shop.
func (r *realWorld) topics(ctx context.Context, w *world) error {
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(w.shop.Kafka...), Timeout: prepareTime, Transport: tr}
	names := []string{w.shop.Topics.Placed, w.shop.Topics.Confirmed, w.shop.Topics.Rejected}
	var topics []kafka.TopicConfig
	for _, name := range names {
		topics = append(topics, kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: -1})
	}
	res, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return err
	}
	r.clean = append(r.clean, func(ctx context.Context) error {
		tr := &kafka.Transport{}
		defer tr.CloseIdleConnections()
		client := &kafka.Client{Addr: client.Addr, Timeout: prepareTime, Transport: tr}
		_, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: names})
		return err
	})
	for _, name := range names {
		err = errors.Join(err, res.Errors[name])
	}
	return err
}

// close ends the demo's own servers, and takes what it made away from those of
// others. With --keep the data stays.
func (r *realWorld) close() error {
	var errs []error
	if len(r.leftOut) > 0 && !r.cfg.Keep {
		ctx, cancel := context.WithTimeout(context.Background(), prepareTime) // also after Ctrl-C
		defer cancel()
		for _, clean := range slices.Backward(r.clean) {
			errs = append(errs, clean(ctx))
		}
	}
	for _, s := range r.own {
		errs = append(errs, s.end(r.cfg.Keep))
	}
	return errors.Join(errs...)
}

// server is one of the demo's own.
type server struct {
	p    *services.Process
	root string // where it is written down, to be swept if the demo is killed
}

func (s *server) start(ctx context.Context) error { return s.p.Own(ctx, s.root) }

func (s *server) end(keep bool) error {
	if keep {
		return errors.Join(s.p.Stop(), services.Forget(s.root, s.p))
	}
	return services.Disown(s.root, s.p)
}
