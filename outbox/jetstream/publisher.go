package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
)

// Publisher is an outbox.Publisher that writes to JetStream. It is safe for
// concurrent use. There is nothing to close: the connection is the caller's.
type Publisher struct {
	cfg Config
	nc  *nats.Conn
	js  jetstream.JetStream

	making sync.Mutex // one makes the stream at a time
}

// New makes a publisher on a connection, which is the caller's to configure (see
// Options), to secure and to close.
func New(nc *nats.Conn, cfg *Config) (*Publisher, error) {
	p := &Publisher{nc: nc}
	if cfg != nil {
		p.cfg = *cfg
	}
	err := p.cfg.complete()
	if nc == nil {
		err = errors.Join(errors.New("jetstream: New: no connection: nats.Connect makes one"), err)
	}
	if err != nil {
		return nil, err
	}
	if p.js, err = jetstream.New(nc); err != nil {
		return nil, fmt.Errorf("jetstream: New: %w", err)
	}
	return p, nil
}

// Publish publishes msgs and answers with one result per message, in their
// order; nil means that all are stored.
//
// Messages of one key are published one after the other, whatever their topics:
// when one fails, the later ones are held, unsent. A message that JetStream can
// never take (too large, a topic that is no subject) fails with
// outbox.ErrPoison; any other error may pass: no connection, no stream, a stream
// that is full. After a lost acknowledgement the message may be stored all the
// same: the server drops it when it is published again within the stream's
// duplicate window.
//
// It gives up when ctx ends, at the latest after Config.Timeout; where the
// server does not read, after the connection's FlusherTimeout.
func (p *Publisher) Publish(ctx context.Context, msgs []outbox.Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	errs := make([]error, len(msgs))
	var g errgroup.Group
	g.SetLimit(p.cfg.Window)
	for _, chain := range chains(msgs) {
		g.Go(func() error {
			for n, i := range chain { // no two chains share an index
				err := p.send(ctx, msgs[i])
				if err == nil {
					continue
				}
				errs[i] = fmt.Errorf("jetstream: topic %q: message %q: %w", msgs[i].Topic, msgs[i].ID, err)
				for _, later := range chain[n+1:] {
					errs[later] = outbox.ErrHeld
				}
				break
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no errors
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

// chains are the messages of each key, in order.
func chains(msgs []outbox.Message) [][]int {
	var out [][]int
	byKey := map[string]int{}
	for i, m := range msgs {
		at, ok := byKey[m.Key]
		if m.Key == "" || !ok {
			at = len(out)
			out = append(out, nil)
			byKey[m.Key] = at
		}
		out[at] = append(out[at], i)
	}
	return out
}

// send publishes one message and waits for its acknowledgement.
func (p *Publisher) send(ctx context.Context, m outbox.Message) error {
	msg, err := p.cfg.encode(m)
	if err != nil {
		return outbox.Poison(err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !p.nc.IsConnected() {
		return fmt.Errorf("no connection to NATS (%v): %w", p.nc.Status(), errors.Join(nats.ErrDisconnected, p.nc.LastError()))
	}
	err = p.store(ctx, msg)
	if errors.Is(err, jetstream.ErrNoStreamResponse) && p.cfg.Stream != nil {
		if err := p.makeStream(ctx); err != nil {
			return err
		}
		err = p.store(ctx, msg)
	}
	return explain(err, msg)
}

func (p *Publisher) store(ctx context.Context, msg *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
	defer cancel()
	_, err := p.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	return err
}

// makeStream makes the stream of the configuration. One of its name may be there
// already, made by another process a moment ago.
func (p *Publisher) makeStream(ctx context.Context) error {
	p.making.Lock()
	defer p.making.Unlock()
	ctx, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
	defer cancel()
	if _, err := p.js.CreateStream(ctx, *p.cfg.Stream); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("make stream %q: %w", p.cfg.Stream.Name, err)
	}
	return nil
}

// explain says what to do about an error, and which will never pass.
func explain(err error, msg *nats.Msg) error {
	const wrongStream jetstream.ErrorCode = 10060 // JSStreamNotMatchErr; the library has no name for it
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("no stream takes subject %q: make one, or set Config.Stream: %w", msg.Subject, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return outbox.Poison(fmt.Errorf("its body of %d bytes with its headers is over the server's max_payload: "+
			"raise it, or send a reference instead of the body: %w", len(msg.Data), err))
	case errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
		return outbox.Poison(fmt.Errorf("its body of %d bytes with its headers is over the stream's MaxMsgSize: "+
			"raise it, or send a reference instead of the body: %w", len(msg.Data), err))
	case errors.As(err, &api) && api.ErrorCode == wrongStream:
		return fmt.Errorf("another stream than Config.ExpectStream %q takes subject %q: change the one or the other: %w",
			msg.Header.Get(jetstream.ExpectedStreamHeader), msg.Subject, err)
	}
	return err
}
