// Package demo runs the shop as processes, lets two of them be killed in the
// middle, and shows that nothing was lost or done twice.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/check"
	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/examples/shop/internal/service"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// Config says what a demo runs.
type Config struct {
	Amends string           // the coordinator's program
	Shop   string           // the services' program: this one
	Dir    string           // for everything that the processes keep; must be empty
	Orders []orders.Order   // to be placed
	Bad    []orders.BadLine // of the same file, to be reported
	Source string           // the file's name, for reports
	Keep   bool             // Dir stays when all is done, which is told
	Rate   int              // orders handed in per second; 0: 250
	JSON   bool             // the result on Out is JSON, and what happens is told on Err
	Out    io.Writer
	Err    io.Writer
}

// ErrFailed says that the shop broke a promise.
var ErrFailed = errors.New("an invariant does not hold")

// patience is how long a demo waits when nothing moves any more.
const patience = 20 * time.Second

// Run runs a demo: processes, crashes, checks, and the table in the end. All
// its processes are gone when it returns. ErrFailed: something was wrong, and
// was reported.
func Run(ctx context.Context, cfg Config) error {
	d := &demo{cfg: cfg, console: newConsole(cfg.Out), lost: map[string][]string{}}
	if cfg.JSON {
		d.console = newConsole(cfg.Err)
	}
	if cfg.Rate == 0 {
		d.cfg.Rate = 250
	}
	d.greet()
	if len(cfg.Orders) == 0 {
		return fmt.Errorf("%s holds no order that can be placed: nothing to show", cfg.Source)
	}
	stop, err := d.infrastructure()
	if err != nil {
		return err
	}
	defer stop()
	if err := d.processes(); err != nil {
		return err
	}
	err = d.run(ctx)
	if ctx.Err() != nil { // Ctrl-C
		return context.Cause(ctx)
	}
	if err != nil {
		d.tails()
		return err
	}
	return d.judge(ctx)
}

type demo struct {
	cfg         Config
	console     *console
	shop        check.Shop
	coordinator *process
	order       *process
	payment     *process
	services    []*process
	feeder      *feeder
	lostMu      sync.Mutex
	lost        map[string][]string // transactions under way when a process was killed, by its name
	stalled     string              // why it did not come to rest; empty: it did
}

func (d *demo) greet() {
	for _, b := range d.cfg.Bad {
		d.console.line(yellow, fmt.Sprintf("%s:%d: left out: %s", d.cfg.Source, b.Number, printable(b.Reason.Error())))
	}
	d.console.say(bold, "a shop of 4 services and a coordinator, %s lines of orders from %s", number(len(d.cfg.Orders)), d.cfg.Source)
	if d.cfg.Keep {
		d.console.say(plain, "databases and logs stay in %s", d.cfg.Dir)
	}
}

// infrastructure starts Kafka and Redis in this process, for development only.
func (d *demo) infrastructure() (stop func(), err error) {
	log, err := os.Create(filepath.Join(d.cfg.Dir, "demo.log"))
	if err != nil {
		return nil, err
	}
	logger := slog.New(slog.NewTextHandler(log, nil))
	topics := map[string]int{service.TopicPlaced: 4, service.TopicConfirmed: 4, service.TopicRejected: 4}
	kafka, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{
		Dir: filepath.Join(d.cfg.Dir, "kafka"), Topics: topics, Logger: logger,
	})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	redis, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Logger: logger})
	if err != nil {
		kafka.Close()
		return nil, errors.Join(err, log.Close())
	}
	d.shop = Shop(d.cfg.Dir, kafka.Addr())
	for _, name := range []string{service.Order, service.Inventory, service.Payment, service.Notification} {
		d.services = append(d.services, newProcess(name, d.cfg.Shop, d.cfg.Dir, `^shop: \w+ ready(?: on (\S+))?$`,
			"service", name, "--dir", d.cfg.Dir, "--kafka", kafka.Addr(), "--redis", redis.Addr(), "--tethered"))
	}
	return func() {
		redis.Close()
		kafka.Close()
		log.Close() // nothing depends on it
	}, nil
}

// Shop tells the checker what a demo in dir, with Kafka at addr, left behind.
func Shop(dir, addr string) check.Shop {
	s := check.Shop{
		Dir: dir, Coordinator: filepath.Join(dir, "coordinator"), Kafka: addr,
		Topics:  check.Topics{Placed: service.TopicPlaced, Confirmed: service.TopicConfirmed, Rejected: service.TopicRejected},
		Balance: service.OpeningBalance, Stock: map[string]int64{},
	}
	for _, p := range service.Catalogue() {
		s.Stock[p.Name] = int64(p.Stock)
	}
	return s
}

func (d *demo) processes() error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	d.coordinator = newProcess("coordinator", d.cfg.Amends, d.cfg.Dir, `^amends: serving on (\S+)`,
		"serve", "--data-dir", d.shop.Coordinator, "--listen", addr)
	for _, p := range d.services {
		p.args = append(p.args, "--coordinator", addr)
	}
	d.order, d.payment = d.services[0], d.services[2]
	d.feeder = newFeeder(d.order.address, d.cfg.Rate)
	d.coordinator.killed = func(ctx context.Context) { d.countLost(ctx, d.coordinator) }
	d.payment.killed = func(ctx context.Context) { d.countLost(ctx, d.payment) }
	return nil
}

// freePort finds a port below the ephemeral range, so that it is still free
// when the coordinator comes back: no connection of anybody gets it meanwhile.
func freePort() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)) //nolint:gosec // any will do
		lis, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
		if err != nil {
			continue
		}
		return addr, lis.Close()
	}
	return "", errors.New("no port between 20000 and 32000 is free")
}

// run returns when the work is done and every process is gone: the services
// first, then the coordinator.
func (d *demo) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.coordinator.run(ctx) })
	g.Go(func() error {
		defer stop()
		if err := d.coordinator.awaitReady(ctx); err != nil {
			return err
		}
		return d.withServices(ctx)
	})
	return g.Wait()
}

func (d *demo) withServices(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range d.services {
		g.Go(func() error { return p.run(ctx) })
	}
	g.Go(func() error {
		defer stop()
		for _, p := range d.services {
			if err := p.awaitReady(ctx); err != nil {
				return err
			}
		}
		return d.work(ctx)
	})
	return g.Wait()
}
