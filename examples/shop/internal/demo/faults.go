package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/amends-dev/amends/deploy/services"
	"github.com/amends-dev/amends/examples/shop/internal/check"
)

// backWithin is for the slowest of all, a JVM on a machine that is busy.
const backWithin = 2 * time.Minute

// fault is something that goes away while the shop is at work, and comes back.
type fault struct {
	name string
	at   int // percent of the lines that are handed in when it strikes, or more
	// strike takes it away and says how; done is false when it was away already.
	strike func() (how string, done bool, err error)
	back   func(ctx context.Context) error // returns when it is there again
	kill   bool                            // a process of the shop's, not a server that restarts

	struck time.Time
}

// schedule spreads the faults over the run. On real servers there are more of
// them, so they begin earlier.
func (d *demo) schedule() []*fault {
	if !d.cfg.Real {
		return []*fault{d.coordinator.fault(40), d.payment.fault(60)}
	}
	faults := []*fault{d.coordinator.fault(10), d.payment.fault(25), d.relay.fault(35)}
	at := map[services.Service]int{services.MySQL: 50, services.Redis: 65, services.Kafka: 75}
	for _, s := range d.world.servers {
		faults = append(faults, s.fault(at[s.p.Service]))
	}
	return faults
}

func (p *process) fault(at int) *fault {
	return &fault{name: p.name, at: at, back: p.awaitRestart, kill: true, strike: func() (string, bool, error) {
		if !p.isUp() {
			return "", false, nil
		}
		pid, done, err := p.kill()
		return fmt.Sprintf("kill -9 %d", pid), done, err
	}}
}

// fault of a server: MySQL is killed, as that is what a database must survive.
func (s *server) fault(at int) *fault {
	f := &fault{name: s.p.Service.Title(), at: at, back: s.start}
	f.strike = func() (string, bool, error) { return "stopped for a restart", true, s.p.Stop() }
	if s.p.Service == services.MySQL {
		f.strike = func() (string, bool, error) {
			pid := s.p.PID
			return fmt.Sprintf("kill -9 %d", pid), true, s.p.Kill()
		}
	}
	return f
}

// nemesis strikes one fault after the other: the next one when the shop works
// again, is under load, and enough is handed in. It holds the feeder back, so
// that there is load left for each.
type nemesis struct {
	*demo
	faults []*fault  // that are still to come
	last   *fault    // that struck and is back, as long as the shop does not work again
	back   time.Time // when that was
}

func newNemesis(d *demo) *nemesis {
	n := &nemesis{demo: d, faults: d.faults}
	n.allow()
	return n
}

// allow lets the feeder hand in what belongs before the fault after the next.
func (n *nemesis) allow() {
	limit := len(n.cfg.Orders)
	if after := n.faults[min(1, len(n.faults)):]; len(after) > 0 {
		limit = linesAt(after[0], limit)
	}
	n.feeder.allow(limit)
}

// linesAt is how many lines are handed in at least when f strikes.
func linesAt(f *fault, lines int) int { return (lines*f.at + 99) / 100 }

// step strikes if it is time to.
func (n *nemesis) step(ctx context.Context, now view) error {
	if n.last != nil {
		return n.awaitWork(ctx, now)
	}
	if len(n.faults) == 0 || now.fed < linesAt(n.faults[0], now.lines) || !now.loaded() && !now.idle() {
		return nil
	}
	f, at := n.faults[0], time.Now()
	how, done, err := f.strike()
	if !done || err != nil {
		return err
	}
	f.struck = at
	n.faults = n.faults[1:]
	when := "in the middle of its work"
	if now.idle() {
		when = "and had nothing to do: more orders show more"
	}
	n.console.say(red, "%s: %s is gone, %s", how, f.name, when)
	soon, cancel := context.WithTimeout(ctx, backWithin)
	defer cancel()
	if err := f.back(soon); err != nil {
		return fmt.Errorf("%s does not come back: %w", f.name, err)
	}
	underWay, _, err := check.UnderWay(ctx, n.world.shop, f.struck)
	if err != nil {
		return err
	}
	n.console.say(green, "%s is back after %.1f s, and %s transactions that were under way go on",
		f.name, time.Since(f.struck).Seconds(), number(underWay))
	n.last, n.back = f, time.Now()
	return nil
}

// awaitWork looks for an order that was placed after the last fault and has
// ended. The next fault is for the load that comes then.
func (n *nemesis) awaitWork(ctx context.Context, now view) error {
	ended, err := check.Whole(ctx, n.world.shop, n.back)
	if err != nil || ended == 0 && !now.idle() {
		return err
	}
	if ended > 0 {
		n.console.say(green, "%.1f s after %s went away, the first order placed since it is back has ended",
			time.Since(n.last.struck).Seconds(), n.last.name)
	}
	n.last = nil
	n.allow()
	return nil
}
