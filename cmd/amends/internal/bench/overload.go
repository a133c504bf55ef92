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
	"github.com/amends-dev/amends/sdk"
)

const (
	peakClients    = 64  // whose closed loop is the peak
	offeredOfPeak  = 2.0 // what is offered without a rate
	limitPeak      = "peak"
	overloadBudget = 2 * time.Minute // for a transaction to end, after which it has failed
)

// runOverload measures a closed loop of 64 clients, and then offers twice that,
// or the rate of the configuration, whatever is under way: what completes while
// it is offered is counted, and compared with the closed loop. Each client has a
// connection of its own.
func runOverload(ctx context.Context, r *rig) (Result, error) {
	client, err := r.services(ctx)
	if err != nil {
		return Result{}, err
	}
	s := sagaOf(r.cfg)
	closed := *r.cfg
	closed.Clients, closed.Rate = min(peakClients, r.cfg.Clients), 0
	quiet := *r
	quiet.cfg = &closed
	peak, err := quiet.loop(ctx, func(ctx context.Context, n int) error {
		return ended(sdk.RunSaga(ctx, client, s, input{account: n * r.cfg.Steps}, nil))
	})
	if err != nil {
		return Result{}, err
	}
	clients := make([]*sdk.Client, r.cfg.Clients)
	for i := range clients {
		conn, err := r.connect(r.addrs)
		if err != nil {
			return Result{}, err
		}
		clients[i] = sdk.NewClient(conn, &sdk.ClientConfig{Logger: r.cfg.Logger})
	}
	rate := r.cfg.Rate
	if rate == 0 {
		rate = offeredOfPeak * peak.PerSecond
	}
	res, err := r.offer(ctx, rate, func(ctx context.Context, n int) error {
		n %= r.cfg.Clients
		return ended(sdk.RunSaga(ctx, clients[n], s, input{account: n * r.cfg.Steps}, nil))
	})
	res.Setup = fmt.Sprintf("%s, %d clients, %.0f/s offered where %.0f/s is the peak", r.cfg.Store, r.cfg.Clients, rate, peak.PerSecond) +
		r.shape("steps")
	res.Limit, res.Fraction = limitPeak, res.PerSecond/peak.PerSecond
	return res, err
}

// offered counts what became of what began after the warm-up, and, for its rate,
// what completed between the warm-up and the end.
type offered struct {
	counts
	inTime atomic.Int64
	mu     sync.Mutex // guards what follows
	hist   *hdrhistogram.Histogram
	other  map[string]int64 // failures by what they say they are
}

// offer begins op at a rate, however many are under way, for the warm-up and then
// for the time to measure, and waits for all of them.
func (r *rig) offer(ctx context.Context, rate float64, op operation) (Result, error) {
	o := &offered{hist: hdrhistogram.New(1, longest, digits), other: map[string]int64{}}
	var g errgroup.Group
	begin := time.Now()
	from, to := begin.Add(r.cfg.Warmup), begin.Add(r.cfg.Warmup+r.cfg.For)
	before, err := r.meter(ctx)
	if err != nil {
		return Result{}, err
	}
	for n := 0; ctx.Err() == nil; n++ {
		due := begin.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		if due.After(to) {
			break
		}
		wait(ctx, time.Until(due))
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, overloadBudget)
			defer cancel()
			err := op(ctx, n)
			o.note(err, due, time.Now(), from, to)
			return nil
		})
	}
	held := memory() // while it is full
	after, err := r.meter(ctx)
	if err != nil {
		return Result{}, err
	}
	_ = g.Wait() // they return nil
	res := r.result(&o.counts, r.cfg.For, o.hist, before.until(after, o.completed.Load()))
	res.Began, res.PerSecond, res.Failures, res.Memory = from, float64(o.inTime.Load())/r.cfg.For.Seconds(), o.other, held
	return res, ctx.Err()
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
	if errors.Is(err, sdk.ErrOverloaded) && errors.As(err, &known) && known.RetryAfter <= 0 {
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
