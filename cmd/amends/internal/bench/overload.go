package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

const (
	peakClients    = 64  // whose closed loop is the peak
	offeredOfPeak  = 2.0 // what is offered without a rate
	limitPeak      = "peak"
	overloadBudget = 2 * time.Minute // for a transaction to end, after which it has failed
	openAtOnce     = 64              // requests of a client at most, in an open loop
	connectAtOnce  = 64
)

// runOverload measures a closed loop of 64 clients, and then has all clients
// offer twice that, or the rate of the configuration: what completes while it is
// offered is counted, and compared with the closed loop. Each client has a
// connection of its own, on which it has been answered before, and waits for an
// answer before it asks again: what is due meanwhile waits, and counts from when
// it was due. One that is refused stays away for as long as it is told.
//
// In an open loop a client asks when it is due, whatever became of what it asked
// before, and never again for what was refused. What is due while 64 of its
// requests are unanswered is not sent, and counted apart.
func runOverload(ctx context.Context, r *rig) (Result, error) {
	if _, err := r.services(ctx); err != nil {
		return Result{}, err
	}
	s := sagaOf(r.cfg)
	clients, err := r.clients(ctx, s)
	if err != nil {
		return Result{}, err
	}
	once := func(ctx context.Context, n int) error {
		return ended(sdk.RunSaga(ctx, clients[n], s, input{account: n * r.cfg.Steps}, nil))
	}
	closed := *r.cfg
	closed.Clients, closed.Rate = min(peakClients, r.cfg.Clients), 0
	quiet := *r
	quiet.cfg = &closed
	peak, err := quiet.loop(ctx, once)
	if err != nil {
		return Result{}, err
	}
	rate := r.cfg.Rate
	if rate == 0 {
		rate = offeredOfPeak * peak.PerSecond
	}
	res, err := r.offer(ctx, rate, once)
	res.Setup = fmt.Sprintf("%s, %d clients, %.0f/s offered where %.0f/s is the peak", r.cfg.Store, r.cfg.Clients, rate, peak.PerSecond) +
		r.shape("steps")
	if r.cfg.Open {
		res.Setup += ", open loop"
	}
	res.Limit, res.Fraction = limitPeak, res.PerSecond/peak.PerSecond
	return res, err
}

// clients returns clients, each with a connection of its own, on which it has been
// answered.
func (r *rig) clients(ctx context.Context, s saga.Saga[input]) ([]*sdk.Client, error) {
	var g errgroup.Group
	g.SetLimit(connectAtOnce)
	all := make([]*sdk.Client, r.cfg.Clients)
	for i := range all {
		conn, err := r.connect(r.addrs)
		if err != nil {
			return nil, err
		}
		all[i] = sdk.NewClient(conn, &sdk.ClientConfig{Logger: r.cfg.Logger})
		g.Go(func() error {
			err := sdk.RunSaga(ctx, all[i], s, input{account: i * r.cfg.Steps}, nil)
			if errors.Is(err, sdk.ErrOverloaded) { // which is an answer, too
				return nil
			}
			return ended(err)
		})
	}
	return all, g.Wait()
}

// offered counts what became of what began after the warm-up, and, for its rate,
// what completed between the warm-up and the end.
type offered struct {
	counts
	inTime atomic.Int64
	unsent atomic.Int64 // in an open loop
	mu     sync.Mutex   // guards what follows
	hist   *hdrhistogram.Histogram
	other  map[string]int64 // failures by what they say they are
}

// offer has clients do op at a rate, for the warm-up and then for the time to
// measure, and waits for what has begun.
func (r *rig) offer(ctx context.Context, rate float64, op operation) (Result, error) {
	o := &offered{hist: hdrhistogram.New(1, longest, digits), other: map[string]int64{}}
	var g errgroup.Group
	begin := time.Now()
	from, to := begin.Add(r.cfg.Warmup), begin.Add(r.cfg.Warmup+r.cfg.For)
	for client := range r.cfg.Clients {
		g.Go(func() error {
			var open errgroup.Group
			open.SetLimit(openAtOnce)
			r.keep(ctx, begin, to, rate, client, func(due time.Time) {
				one := func() error {
					wait(ctx, r.one(ctx, o, op, client, due, from, to))
					return nil
				}
				switch {
				case !r.cfg.Open:
					_ = one() // it returns nil
				case !open.TryGo(one) && !due.Before(from):
					o.unsent.Add(1)
				}
			})
			return open.Wait()
		})
	}
	wait(ctx, time.Until(from))
	before, err := r.meter(ctx)
	wait(ctx, time.Until(to))
	held := memory() // while it is full
	after, err2 := r.meter(ctx)
	done := o.inTime.Load()
	_ = g.Wait() // they return nil
	if err := errors.Join(err, err2); err != nil {
		return Result{}, err
	}
	res := r.result(&o.counts, r.cfg.For, o.hist, before.until(after, done))
	res.Began, res.PerSecond, res.Failures, res.Memory = from, float64(o.inTime.Load())/r.cfg.For.Seconds(), o.other, held
	res.Unsent = o.unsent.Load()
	return res, ctx.Err()
}

// keep calls do whenever a client's turn in the schedule of a rate has come, or as
// soon after it as do has returned, until the time is over.
func (r *rig) keep(ctx context.Context, begin, to time.Time, rate float64, client int, do func(due time.Time)) {
	for n := 0; ctx.Err() == nil; n++ {
		// Each client has every Clients-th place in the schedule.
		place := float64(n*r.cfg.Clients+client) / rate
		due := begin.Add(time.Duration(place * float64(time.Second)))
		wait(ctx, time.Until(due))
		if due.After(to) || time.Now().After(to) {
			return
		}
		do(due)
	}
}

// one does what was due, and returns how long its client is to stay away.
func (r *rig) one(ctx context.Context, o *offered, op operation, client int, due, from, to time.Time) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, overloadBudget)
	defer cancel()
	err := op(ctx, client)
	o.note(err, due, time.Now(), from, to)
	var known *amendsv1.Error
	if errors.As(err, &known) && !r.cfg.Open {
		return known.RetryAfter
	}
	return 0
}

func (o *offered) note(err error, due, now, from, to time.Time) {
	if err == nil && now.After(from) && now.Before(to) {
		o.inTime.Add(1)
	}
	if due.Before(from) {
		return
	}
	o.started.Add(1)
	var known *amendsv1.Error
	if errors.As(err, &known) && errors.Is(err, sdk.ErrOverloaded) && known.RetryAfter <= 0 {
		err = fmt.Errorf("refused without a delay: %v", err) // not the refusal that it should be
	}
	o.count(err)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		_ = o.hist.RecordValue(min(now.Sub(due).Microseconds(), longest)) // it fits
	case !errors.Is(err, sdk.ErrOverloaded):
		o.other[kindOf(err)]++
	}
}

// kindOf groups failures.
func kindOf(err error) string {
	var known *amendsv1.Error
	switch {
	case errors.As(err, &known):
		return known.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	}
	if code := status.Code(err); code != codes.Unknown { // which is no status, too
		return code.String()
	}
	return "other"
}
