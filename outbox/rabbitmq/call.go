package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
)

// grace is how long after its context's end a Publish may take, before its
// connection is cut: it hangs in a write or a call that knows no context.
const grace = time.Second

// call is one Publish under way.
type call struct {
	cfg    *Config
	link   *link
	err    error // there is no link
	msgs   []outbox.Message
	out    []outgoing
	chains [][]int // the messages of each key, in order
	errs   []error
	done   []bool // the message has its result

	mu      sync.Mutex // guards what follows
	lane    *lane
	missing map[string]error // exchanges
}

func newCall(cfg *Config, msgs []outbox.Message) *call {
	c := &call{
		cfg: cfg, msgs: msgs, out: make([]outgoing, len(msgs)), errs: make([]error, len(msgs)), done: make([]bool, len(msgs)),
		missing: map[string]error{},
	}
	byKey := map[string]int{}
	for i, m := range msgs {
		c.out[i] = cfg.encode(m)
		at, ok := byKey[m.Key]
		if m.Key == "" || !ok {
			at = len(c.chains)
			c.chains = append(c.chains, nil)
			byKey[m.Key] = at
		}
		c.chains[at] = append(c.chains[at], i)
	}
	return c
}

// run publishes the messages of different keys at once. When the broker closes
// the channel under them, those of unknown fate are published one at a time:
// so the one to blame is found, and the others arrive.
func (c *call) run(ctx context.Context) {
	if c.link != nil {
		finished := make(chan struct{})
		defer close(finished)
		stop := context.AfterFunc(ctx, func() {
			select {
			case <-finished:
			case <-time.After(grace):
				c.link.tcp.Close() // the connection's reader reports it
			}
		})
		defer stop()
	}
	var g errgroup.Group
	g.SetLimit(c.cfg.Window)
	for _, chain := range c.chains {
		g.Go(func() error {
			c.follow(chain, func(i int) error { return c.send(ctx, i) })
			return nil
		})
	}
	_ = g.Wait() // follow keeps the errors
	for _, chain := range c.chains {
		c.follow(chain, func(i int) error { return c.sendAlone(ctx, i) })
	}
	if c.lane != nil {
		c.lane.release()
	}
}

// follow publishes what is left of a chain. It leaves it when the channel was closed.
func (c *call) follow(chain []int, send func(int) error) {
	for n, i := range chain {
		if c.done[i] {
			continue
		}
		err := send(i)
		if errors.Is(err, errLane) {
			return
		}
		c.done[i] = true
		if err == nil {
			continue
		}
		c.errs[i] = fmt.Errorf("rabbitmq: topic %q: message %q: %w", c.msgs[i].Topic, c.msgs[i].ID, err)
		for _, later := range chain[n+1:] {
			c.errs[later], c.done[later] = outbox.ErrHeld, true
		}
		return
	}
}

// send publishes one message beside others.
func (c *call) send(ctx context.Context, i int) error {
	_, err := c.try(ctx, i)
	return err
}

// sendAlone publishes one message while no other is unconfirmed, and blames it
// when the channel is closed then.
func (c *call) sendAlone(ctx context.Context, i int) error {
	for tries := 1; ; tries++ {
		sent, err := c.try(ctx, i)
		if !errors.Is(err, errLane) {
			return err
		}
		if !sent && tries < 3 {
			continue // the lane was closed before; the next one is new
		}
		err = fmt.Errorf("%v", err) //nolint:errorlint // it is this message's error now, and the channel's no more
		exchange := c.out[i].exchange
		switch code := c.lane.code(); code {
		case amqp.PreconditionFailed, amqp.ContentTooLarge: // too large for the broker, or a header that it cannot read
			return outbox.Poison(err)
		case amqp.NotFound:
			c.link.know(exchange, false)
			c.missing[exchange] = err
		}
		return err
	}
}

// try publishes a message on the call's lane. sent is false when it surely did
// not leave.
func (c *call) try(ctx context.Context, i int) (sent bool, err error) {
	o := &c.out[i]
	if o.err != nil {
		return false, outbox.Poison(o.err)
	}
	if c.err != nil {
		return false, c.err
	}
	if frame := c.link.conn.Config.FrameSize; frame > 0 && o.headerSize() > frame-128 {
		return false, outbox.Poison(fmt.Errorf("its headers take about %d bytes, and the broker's frames %d: "+
			"move what is large into the body, or raise frame_max", o.headerSize(), frame))
	}
	// First: a broker that blocks reads nothing from us, nor would it open a channel.
	if err := c.link.unblocked(ctx); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	a, err := c.ready(o.exchange)
	if err != nil {
		return false, err
	}
	return a.send(ctx, o)
}

// ready answers with an open lane, when the exchange is there.
func (c *call) ready(exchange string) (*lane, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.missing[exchange]; err != nil {
		return nil, err
	}
	if err := c.link.exchange(exchange); err != nil {
		c.missing[exchange] = err
		return nil, err
	}
	if c.lane == nil || c.lane.ch.IsClosed() {
		a, err := c.link.lane()
		if err != nil {
			return nil, err
		}
		c.lane = a
	}
	return c.lane, nil
}

// outcome is the answer of Publish.
func (c *call) outcome() []error {
	for _, err := range c.errs {
		if err != nil {
			return c.errs
		}
	}
	return nil
}
