package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
)

const (
	customersAtOnce = 16
	askAgain        = 50 * time.Millisecond
)

// feeder hands in the orders, at a steady rate, whatever happens to the shop.
type feeder struct {
	address func() string // of the order service
	http    http.Client
	rate    int // orders a second

	mu         sync.Mutex
	fed        int // lines answered for good
	again      int // of them, placed before
	turnedAway map[string]int
}

func newFeeder(address func() string, rate int) *feeder {
	return &feeder{
		address: address, rate: rate, turnedAway: map[string]int{},
		http: http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: customersAtOnce}},
	}
}

func (f *feeder) run(ctx context.Context, all []orders.Order) error {
	defer f.http.CloseIdleConnections()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(customersAtOnce)
	start := time.Now()
	for i, o := range all {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(f.rate))
		if !sleep(gctx, time.Until(due)) {
			break
		}
		g.Go(func() error { return f.hand(gctx, o) })
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// hand places one order, asking until there is an answer: an order handed in
// again is the same order.
func (f *feeder) hand(ctx context.Context, o orders.Order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	for {
		done, err := f.post(ctx, body)
		if done || err != nil {
			return err
		}
		if !sleep(ctx, askAgain) {
			return ctx.Err()
		}
	}
}

func (f *feeder) post(ctx context.Context, body []byte) (done bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.address()+"/orders", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return false, nil //nolint:nilerr // the service is away: ask again
	}
	defer resp.Body.Close() // read as far as it matters
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil || resp.StatusCode >= http.StatusInternalServerError {
		return false, nil //nolint:nilerr // likewise
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fed++
	switch resp.StatusCode {
	case http.StatusCreated:
	case http.StatusOK:
		f.again++
	case http.StatusUnprocessableEntity:
		reason, _, _ := strings.Cut(strings.TrimSpace(string(text)), ` "`) // without the name
		f.turnedAway[reason]++
	default:
		return false, fmt.Errorf("the order service answers %s: %s", resp.Status, text)
	}
	return true, nil
}

// answered returns how many lines have an answer, and how many of them are no
// order of their own.
func (f *feeder) answered() (fed, noOrder int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	noOrder = f.again
	for _, n := range f.turnedAway {
		noOrder += n
	}
	return f.fed, noOrder
}

// sleep waits for d and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
