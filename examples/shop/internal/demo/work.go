package demo

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/check"
	"github.com/amends-dev/amends/examples/shop/internal/service"
)

// When what is killed, in percent of the orders that have ended.
const (
	killCoordinatorAt = 40
	killPaymentAt     = 60
	lookEvery         = 100 * time.Millisecond
	tellEvery         = time.Second
)

// work hands in the orders, kills twice, and waits until all is at rest.
func (d *demo) work(ctx context.Context) error {
	d.console.say(plain, "coordinator on %s, orders on %s: handing in %s orders a second",
		d.coordinator.address(), d.order.address(), number(d.cfg.Rate))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.feeder.run(ctx, d.cfg.Orders) })
	g.Go(func() error { return d.watch(ctx) })
	return g.Wait()
}

// watch looks at the shop until it is at rest, or nothing moves any more.
func (d *demo) watch(ctx context.Context) error {
	kills := []struct {
		at      int
		process *process
	}{{killCoordinatorAt, d.coordinator}, {killPaymentAt, d.payment}}
	var before, told view
	moved, toldAt := time.Now(), time.Now()
	for sleep(ctx, lookEvery) {
		now, err := d.look(ctx)
		if err != nil {
			return err
		}
		if len(kills) > 0 && now.done*100 >= kills[0].at*len(d.cfg.Orders) && kills[0].process.isUp() {
			done, err := d.kill(ctx, kills[0].process)
			if err != nil {
				return err
			}
			if done {
				kills = kills[1:]
			}
		}
		if now != before {
			before, moved = now, time.Now()
		}
		if time.Since(toldAt) >= tellEvery && now != told {
			told, toldAt = now, time.Now()
			d.tell(now)
		}
		if len(kills) == 0 && now.rest() {
			d.tell(now)
			return nil
		}
		if time.Since(moved) > patience {
			d.stalled = "nothing has moved for " + patience.String()
			d.console.say(red, "%s: giving up", d.stalled)
			return nil
		}
	}
	return ctx.Err()
}

// view is the state of the shop at one moment.
type view struct {
	check.Progress
	lines, fed, done int // of the file; done: fed and its order, if it is one, ended
	unfinished       int // transactions
	lag              int64
}

func (v view) rest() bool {
	return v.fed == v.lines && v.done == v.fed && v.Rewards == 0 && v.Outbox == 0 && v.unfinished == 0 && v.lag == 0
}

func (d *demo) look(ctx context.Context) (view, error) {
	v := view{lines: len(d.cfg.Orders)}
	var noOrder int
	v.fed, noOrder = d.feeder.answered()
	var err error
	if v.Progress, err = check.Look(ctx, d.shop); err != nil {
		return v, err
	}
	v.done = noOrder + v.Ended
	gids, err := check.Unfinished(ctx, d.shop)
	if err != nil {
		return v, err
	}
	v.unfinished = len(gids)
	if v.done < v.lines || v.Outbox > 0 || v.unfinished > 0 {
		return v, nil // it is too early to ask Kafka
	}
	v.lag, err = check.Lag(ctx, d.shop, service.MailGroup)
	return v, err
}

func (d *demo) tell(v view) {
	d.console.say(plain, "%5s of %s lines done, %s orders and %s transactions under way, %s messages waiting",
		number(v.done), number(v.lines), number(v.Placed-v.Ended), number(v.unfinished), number(int(v.Outbox)))
}

// kill kills a process with SIGKILL and tells when it is back.
func (d *demo) kill(ctx context.Context, p *process) (done bool, err error) {
	pid, done, err := p.kill()
	if !done {
		return false, err
	}
	d.console.say(red, "kill -9 %d: %s is gone, in the middle of its work", pid, p.name)
	at := time.Now()
	if err := p.awaitRestart(ctx); err != nil {
		return true, err
	}
	d.console.say(green, "%s is back after %.1f s, and %s transactions that were under way go on",
		p.name, time.Since(at).Seconds(), number(d.lostWith(p)))
	return true, nil
}

// countLost notes what a kill met on its way, before the process comes back.
func (d *demo) countLost(ctx context.Context, p *process) {
	gids, err := check.Unfinished(ctx, d.shop)
	if err != nil {
		d.console.say(yellow, "cannot count the transactions under way: %v", err)
	}
	d.lostMu.Lock()
	defer d.lostMu.Unlock()
	d.lost[p.name] = gids
}

func (d *demo) lostWith(p *process) int {
	d.lostMu.Lock()
	defer d.lostMu.Unlock()
	return len(d.lost[p.name])
}
