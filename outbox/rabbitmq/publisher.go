package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/amends-dev/amends/outbox"
)

// errClosed is the answer of a closed Publisher.
var errClosed = errors.New("the publisher is closed")

// Publisher is an outbox.Publisher that writes to RabbitMQ. It keeps one
// connection, made at the first Publish and made again when it was lost, and a
// channel for each Publish under way. It is safe for concurrent use. Close ends it.
type Publisher struct {
	cfg  Config
	url  string
	addr string // for people: without the password

	turn   chan struct{} // held by whoever uses what follows
	link   *link
	closed bool
	tries  int // that failed since the last connection
	after  time.Time
}

// New makes a publisher for a broker: amqp://user:password@host:5672/vhost, or
// amqps:// for TLS. It does not connect: that happens at the first Publish.
func New(address string, cfg *Config) (*Publisher, error) {
	p := &Publisher{url: address, turn: make(chan struct{}, 1)}
	if cfg != nil {
		p.cfg = *cfg
	}
	err := p.cfg.complete()
	uri, e := amqp.ParseURI(address)
	if e != nil {
		var parse *url.Error // which repeats the URL, password and all
		if errors.As(e, &parse) {
			e = parse.Err
		}
		err = errors.Join(fmt.Errorf("rabbitmq: New: the URL: %w: use amqp://user:password@host:port/vhost", e), err)
	}
	if err != nil {
		return nil, err
	}
	p.addr = fmt.Sprintf("%s:%d", uri.Host, uri.Port)
	return p, nil
}

// Publish publishes msgs and answers with one result per message, in their
// order; nil means that all are confirmed.
//
// Messages of one key are published one after the other, whatever their topics:
// when one fails, the later ones are held, unsent. A message that RabbitMQ can
// never take (too large, a name too long) fails with outbox.ErrPoison; any other
// error may pass: no connection, no exchange, no queue, a queue that is full.
// After a lost connection or a closed channel, what was not confirmed may be in
// its queues all the same, and is there twice when it is published again.
//
// It gives up when ctx ends, at the latest after Config.Timeout.
func (p *Publisher) Publish(ctx context.Context, msgs []outbox.Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	c := newCall(&p.cfg, msgs)
	l, err := p.connected(ctx)
	if err != nil {
		c.err = fmt.Errorf("connect to %s: %w", p.addr, err)
	}
	c.link = l
	c.run(ctx)
	return c.outcome()
}

// connected answers with a connection that lives, as far as is known.
func (p *Publisher) connected(ctx context.Context) (*link, error) {
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	defer p.unlock()
	if p.closed {
		return nil, errClosed
	}
	if p.link != nil && !p.link.conn.IsClosed() {
		return p.link, nil
	}
	if p.link != nil {
		p.cfg.Logger.Warn("RabbitMQ: the connection was lost", "broker", p.addr)
		if err := p.link.close(); err != nil {
			p.cfg.Logger.Debug("RabbitMQ: closing the lost connection", "error", err)
		}
		p.link = nil
	}
	if err := wait(ctx, time.Until(p.after)); err != nil {
		return nil, err
	}
	l, err := connect(ctx, p.url, &p.cfg)
	if err != nil {
		pause := min(50*time.Millisecond<<min(p.tries, 20), p.cfg.MaxBackoff)
		p.after = time.Now().Add(pause/2 + rand.N(pause/2+1)) //nolint:gosec // jitter
		p.tries++
		return nil, err
	}
	if p.tries > 0 {
		p.cfg.Logger.Info("RabbitMQ: connected", "broker", p.addr, "failed_attempts", p.tries)
	}
	p.link, p.tries = l, 0
	return l, nil
}

// Close closes the connection, and returns when nothing of it runs any more. A
// Publish under way fails what is not confirmed; later ones fail everything.
func (p *Publisher) Close() error {
	p.turn <- struct{}{}
	defer p.unlock()
	p.closed = true
	if p.link == nil {
		return nil
	}
	l := p.link
	p.link = nil
	if err := l.close(); err != nil {
		return fmt.Errorf("rabbitmq: close: %w", err)
	}
	return nil
}

func (p *Publisher) lock(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Publisher) unlock() { <-p.turn }

// wait pauses, until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
