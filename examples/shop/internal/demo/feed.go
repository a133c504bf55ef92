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
	fed        int             // lines answered for good
	placed     map[string]bool // orders, by their ids
	again      int             // lines that handed in a placed one again
	turnedAway map[string]int
	limit      int           // lines that may be handed in
	raised     chan struct{} // closed when there is a higher limit
}

func newFeeder(address func() string, rate int) *feeder {
	return &feeder{
		address: address, rate: rate, turnedAway: map[string]int{}, placed: map[string]bool{}, raised: make(chan struct{}),
		http: http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: customersAtOnce}},
	}
}

func (f *feeder) run(ctx context.Context, all []orders.Order) error {
	defer f.http.CloseIdleConnections()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(customersAtOnce)
	due := time.Now()
	for i, o := range all {
		if !f.mayPass(gctx, i) || !sleep(gctx, time.Until(due)) {
			break
		}
		due = later(due, time.Now().Add(-time.Second/10)).Add(time.Second / time.Duration(f.rate)) // catches up a little
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
		done, err := f.post(ctx, o.ID, body)
		if done || err != nil {
			return err
		}
		if !sleep(ctx, askAgain) {
			return ctx.Err()
		}
	}
}

func (f *feeder) post(ctx context.Context, id string, body []byte) (done bool, err error) {
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
	case http.StatusCreated, http.StatusOK: // OK may also be an answer to our own second question
		if f.placed[id] {
			f.again++
		}
		f.placed[id] = true
	case http.StatusUnprocessableEntity:
		reason, _, _ := strings.Cut(strings.TrimSpace(string(text)), ` "`) // without the name
		f.turnedAway[reason]++
	default:
		return false, fmt.Errorf("the order service answers %s: %s", resp.Status, text)
	}
	return true, nil
}

// allow raises the number of lines that may be handed in.
func (f *feeder) allow(lines int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = lines
	close(f.raised)
	f.raised = make(chan struct{})
}

// mayPass returns when line i may be handed in; false: ctx ended first.
func (f *feeder) mayPass(ctx context.Context, i int) bool {
	for {
		f.mu.Lock()
		limit, raised := f.limit, f.raised
		f.mu.Unlock()
		if i < limit {
			return true
		}
		select {
		case <-raised:
		case <-ctx.Done():
			return false
		}
	}
}

// answered returns how many lines have an answer, how many of them are no order
// of their own, and whether no more come before allow is called.
func (f *feeder) answered() (fed, noOrder int, held bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	noOrder = f.again
	for _, n := range f.turnedAway {
		noOrder += n
	}
	return f.fed, noOrder, f.fed == f.limit
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
