package bench

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/sdk"
)

// A histogram keeps latencies in microseconds, up to ten minutes, to three digits.
const (
	longest = int64(10 * time.Minute / time.Microsecond)
	digits  = 3
)

// operation is what a client does once. A refusal is sdk.ErrOverloaded.
type operation func(ctx context.Context, client int) error

// counts is what a loop counted.
type counts struct {
	started, completed, refused, failed atomic.Int64
	firstFailure                        atomic.Pointer[error]
}

// loop has clients do op until the time is over, and counts what begins after
// the warm-up. Operations under way at the end are finished and counted.
func (r *rig) loop(ctx context.Context, op operation) (Result, error) {
	if err := r.span(ctx, op, r.cfg.Warmup, new(counts), nil); err != nil {
		return Result{}, err
	}
	var c counts
	hists := make([]*hdrhistogram.Histogram, r.cfg.Clients)
	for i := range hists {
		hists[i] = hdrhistogram.New(1, longest, digits)
	}
	before, err := r.meter(ctx)
	if err != nil {
		return Result{}, err
	}
	begin := time.Now()
	if err := r.span(ctx, op, r.cfg.For, &c, hists); err != nil {
		return Result{}, err
	}
	took := time.Since(begin)
	after, err := r.meter(ctx)
	if err != nil {
		return Result{}, err
	}
	if failure := c.firstFailure.Load(); failure != nil && c.completed.Load() == 0 {
		return Result{}, *failure
	}
	for _, h := range hists[1:] {
		hists[0].Merge(h)
	}
	res := r.result(&c, took, hists[0], before.until(after, c.completed.Load()))
	res.Began = begin
	return res, nil
}

func (r *rig) result(c *counts, took time.Duration, h *hdrhistogram.Histogram, cost Cost) Result {
	ms := func(percentile float64) float64 { return float64(h.ValueAtQuantile(percentile)) / 1000 }
	return Result{
		Setup:   r.setup(),
		Started: c.started.Load(), Completed: c.completed.Load(), Refused: c.refused.Load(), Failed: c.failed.Load(),
		Seconds: took.Seconds(), PerSecond: float64(c.completed.Load()) / took.Seconds(),
		Latency: Latency{P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(h.Max()) / 1000},
		Cost:    cost,
	}
}

// span has clients do op for some time: in a closed loop one after the other, in
// an open one when the schedule says, however late that has become.
func (r *rig) span(ctx context.Context, op operation, d time.Duration, c *counts, hists []*hdrhistogram.Histogram) error {
	var g errgroup.Group
	begin := time.Now()
	for client := range r.cfg.Clients {
		g.Go(func() error {
			for n := 0; ; n++ {
				due := time.Now()
				if r.cfg.Rate > 0 {
					// Each client has every Clients-th place in the schedule.
					place := float64(n*r.cfg.Clients+client) / r.cfg.Rate
					due = begin.Add(time.Duration(place * float64(time.Second)))
				}
				if due.Sub(begin) >= d || ctx.Err() != nil {
					return ctx.Err()
				}
				wait(ctx, time.Until(due))
				c.started.Add(1)
				c.count(op(ctx, client))
				if hists != nil {
					// Too long for the histogram is counted as its longest.
					_ = hists[client].RecordValue(min(time.Since(due).Microseconds(), longest))
				}
			}
		})
	}
	return g.Wait()
}

func (c *counts) count(err error) {
	switch {
	case err == nil:
		c.completed.Add(1)
	case errors.Is(err, sdk.ErrOverloaded):
		c.refused.Add(1)
	default:
		c.failed.Add(1)
		c.firstFailure.CompareAndSwap(nil, &err)
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
