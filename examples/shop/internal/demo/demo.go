// Package demo runs the shop as processes, takes some of them, and of the
// servers that they stand on, away in the middle, and shows that nothing was
// lost or done twice.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/examples/shop/internal/service"
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
	Real   bool             // on MySQL, Redis and Kafka; otherwise embedded
	JSON   bool             // the result on Out is JSON, and what happens is told on Err
	Out    io.Writer
	Err    io.Writer
}

// ErrFailed says that the shop broke a promise.
var ErrFailed = errors.New("an invariant does not hold")

// Run runs a demo: processes, crashes, checks, and the table in the end. All
// its processes are gone when it returns. ErrFailed: something was wrong, and
// was reported.
func Run(ctx context.Context, cfg Config) (err error) {
	d := &demo{cfg: cfg, console: newConsole(cfg.Out)}
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
	around := embedded
	if cfg.Real {
		around = onServers
		d.console.say(plain, "starting MySQL, Redis and Kafka")
	}
	if d.world, err = around(ctx, d); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.world.close()) }()
	for _, left := range d.world.leftOut {
		d.console.say(yellow, "%s", left)
	}
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
	world       *world
	coordinator *process
	services    []*process
	order       *process // of the services
	payment     *process // likewise
	relay       *process // of the order service's outbox
	all         []*process
	feeder      *feeder
	faults      []*fault // in their order
	stalled     string   // why it did not come to rest; empty: it did
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

// Names of processes beside the services.
const (
	coordinatorName = "coordinator"
	relayName       = "relay"
)

// processes prepares all that will run.
func (d *demo) processes() error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	w := d.world
	add := func(name, path, ready string, args ...string) *process {
		p := newProcess(name, path, d.cfg.Dir, ready, args...)
		p.env = w.secrets(name)
		d.all = append(d.all, p)
		return p
	}
	d.coordinator = add(coordinatorName, d.cfg.Amends, `^amends: serving on (\S+)`,
		append([]string{"serve", "--listen", addr}, w.coordinator...)...)
	brokers := strings.Join(w.shop.Kafka, ",")
	for _, name := range []string{service.Order, service.Inventory, service.Payment, service.Notification} {
		args := []string{"service", name, "--dir", d.cfg.Dir, "--coordinator", addr, "--kafka", brokers,
			"--redis", w.redis, "--prefix", w.prefix, "--tethered"}
		p := add(name, d.cfg.Shop, `^shop: \w+ ready(?: on (\S+))?$`, append(args, w.service...)...)
		d.services = append(d.services, p)
	}
	d.order, d.payment = d.services[0], d.services[2]
	d.relay = add(relayName, d.cfg.Amends, `^amends: relaying`,
		append([]string{"relay", "--coordinator", addr, "--kafka", brokers}, w.relay...)...)
	d.feeder = newFeeder(d.order.address, d.cfg.Rate)
	d.faults = d.schedule()
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

// run returns when the work is done and every process is gone: each stage ends
// before the one that it stands on.
func (d *demo) run(ctx context.Context) error {
	return d.stages(ctx, [][]*process{{d.coordinator}, d.services, {d.relay}})
}

// stages starts the processes of the first stage, and on top of it the others,
// and the work when all are ready.
func (d *demo) stages(ctx context.Context, stages [][]*process) error {
	if len(stages) == 0 {
		return d.work(ctx)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range stages[0] {
		g.Go(func() error { return p.run(ctx) })
	}
	g.Go(func() error {
		defer stop()
		for _, p := range stages[0] {
			if err := p.awaitReady(ctx, d.world.patience); err != nil {
				return err
			}
		}
		return d.stages(ctx, stages[1:])
	})
	return g.Wait()
}
