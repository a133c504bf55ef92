package demo

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/check"
)

const (
	lookEvery = 50 * time.Millisecond
	tellEvery = time.Second
)

// work hands in the orders, lets the nemesis strike, and waits until all is at
// rest.
func (d *demo) work(ctx context.Context) error {
	d.console.say(plain, "coordinator on %s, orders on %s: handing in %s orders a second",
		d.coordinator.address(), d.order.address(), number(d.cfg.Rate))
	nemesis := newNemesis(d)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.feeder.run(ctx, d.cfg.Orders) })
	g.Go(func() error { return d.watch(ctx, nemesis) })
	return g.Wait()
}

// watch looks at the shop until it is at rest, or nothing moves any more.
func (d *demo) watch(ctx context.Context, n *nemesis) error {
	var before, told view
	moved, toldAt := time.Now(), time.Now()
	for sleep(ctx, lookEvery) {
		now, err := d.look(ctx)
		if err != nil && time.Since(moved) < d.world.patience {
			continue // what was restarted is not quite there
		}
		if err != nil {
			return err
		}
		if now != before {
			before, moved = now, time.Now()
		}
		if time.Since(toldAt) >= tellEvery && now != told {
			told, toldAt = now, time.Now()
			d.tell(now)
		}
		if err := n.step(ctx, now); err != nil {
			return err
		}
		if len(n.faults) == 0 && now.rest() {
			d.tell(now)
			return nil
		}
		if time.Since(moved) > d.world.patience {
			d.stalled = "nothing has moved for " + d.world.patience.String()
			d.console.say(red, "%s: giving up", d.stalled)
			return nil
		}
	}
	return ctx.Err()
}

// view is the state of the shop at one moment.
type view struct {
	check.Progress
	lines, fed, done int  // of the file; done: fed and its order, if it is one, ended
	held             bool // no more lines are handed in before the nemesis allows it
	unfinished       int  // transactions
	lag              int64
}

// loaded says that the shop is at work: a fault strikes something.
func (v view) loaded() bool { return v.unfinished > 0 && v.Outbox > 0 }

// idle says that all is done that was handed in, and that nothing more comes by
// itself.
func (v view) idle() bool {
	return (v.held || v.fed == v.lines) && v.done == v.fed && v.Rewards == 0 && v.Outbox == 0 && v.unfinished == 0
}

// rest says that all is done, and that every message was handled.
func (v view) rest() bool { return v.fed == v.lines && v.idle() && v.lag == 0 }

func (d *demo) look(ctx context.Context) (view, error) {
	v := view{lines: len(d.cfg.Orders)}
	var noOrder int
	v.fed, noOrder, v.held = d.feeder.answered()
	var err error
	if v.Progress, err = check.Look(ctx, d.world.shop); err != nil {
		return v, err
	}
	v.done = noOrder + v.Ended
	if v.unfinished, err = check.Unfinished(ctx, d.world.shop); err != nil || v.fed < v.lines || !v.idle() {
		return v, err // it is too early to ask Kafka
	}
	if v.lag, err = check.Lag(ctx, d.world.shop, d.world.group()); err != nil {
		return v, fmt.Errorf("kafka: %w", err)
	}
	return v, nil
}

func (d *demo) tell(v view) {
	d.console.say(plain, "%5s of %s lines done, %s orders and %s transactions under way, %s messages waiting",
		number(v.done), number(v.lines), number(v.Placed-v.Ended), number(v.unfinished), number(int(v.Outbox)))
}
