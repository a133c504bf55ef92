package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lane is a channel with confirmations, of one Publish at a time.
type lane struct {
	link *link
	ch   *amqp.Channel
	gone chan *amqp.Error // why the broker closed it

	mu      sync.Mutex // guards what follows
	arrive  chan amqp.Return
	returns map[returnKey]amqp.Return
	reason  *amqp.Error
	unknown bool // something was left unconfirmed: nobody may use the lane again
}

// returnKey is what a returned message is known by. Two that have all of it in
// common share their fate: a message is rather published twice than lost.
type returnKey struct{ exchange, key, id string }

// maxGiven is how many lanes are given up before their connection is.
const maxGiven = 64

// errLane is a closed channel of a connection that lives: what became of the
// unconfirmed messages is not known, and most are not to blame.
var errLane = errors.New("the broker closed the channel")

// lane takes a channel that nobody uses, or opens one.
func (l *link) lane() (*lane, error) {
	l.mu.Lock()
	for n := len(l.idle); n > 0; n = len(l.idle) {
		a := l.idle[n-1]
		l.idle = l.idle[:n-1]
		if !a.ch.IsClosed() {
			l.mu.Unlock()
			return a, nil
		}
	}
	l.mu.Unlock()
	ch, err := l.conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	a := &lane{link: l, ch: ch, returns: map[returnKey]amqp.Return{}}
	a.gone = ch.NotifyClose(make(chan *amqp.Error, 1))
	// With room for all that can be unconfirmed, so that the connection's reader never waits for us.
	a.arrive = ch.NotifyReturn(make(chan amqp.Return, l.cfg.Window))
	return a, nil
}

// release lets another Publish use the lane, if there is no doubt about it.
func (a *lane) release() {
	a.mu.Lock()
	unknown := a.unknown
	clear(a.returns)
	a.mu.Unlock()
	a.link.mu.Lock()
	defer a.link.mu.Unlock()
	switch {
	case a.ch.IsClosed():
	case !unknown:
		a.link.idle = append(a.link.idle, a)
	default: // it ends with its connection, as closing it might take as long as its confirmations
		if a.link.given++; a.link.given == maxGiven {
			a.link.tcp.Close() // the connection's reader reports it
		}
	}
}

// send publishes a message and waits until the broker has confirmed it. sent is
// false when it surely did not leave.
func (a *lane) send(ctx context.Context, o *outgoing) (sent bool, err error) {
	fate, err := a.ch.PublishWithDeferredConfirm(o.exchange, o.key, true, false, o.msg)
	if err != nil {
		return false, a.lost(err)
	}
	select {
	case <-fate.Done():
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		a.unknown = true
		return true, fmt.Errorf("%w: no confirmation yet", ctx.Err())
	}
	if !fate.Acked() {
		if a.ch.IsClosed() {
			return true, a.lost(errors.New("no confirmation"))
		}
		return true, errors.New("the broker refused it (basic.nack): a queue is full, or has failed")
	}
	if r, ok := a.returned(o); ok {
		return true, fmt.Errorf("no queue is bound to exchange %q for routing key %q: bind one (%d %s)",
			o.exchange, o.key, r.ReplyCode, r.ReplyText)
	}
	return true, nil
}

// lost is the error for a message of a closed channel.
func (a *lane) lost(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case e, ok := <-a.gone:
		if ok {
			a.reason = e
		}
	default:
	}
	if a.reason != nil {
		err = a.reason
	}
	if a.link.conn.IsClosed() {
		return fmt.Errorf("the connection was lost: %w", err)
	}
	return fmt.Errorf("%w: %w", errLane, err)
}

// returned tells whether a confirmed message came back. It did so before the
// confirmation did.
func (a *lane) returned(o *outgoing) (amqp.Return, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		select {
		case r, ok := <-a.arrive:
			if ok {
				a.returns[returnKey{r.Exchange, r.RoutingKey, r.MessageId}] = r
				continue
			}
			a.arrive = nil // closed: the channel is
		default:
		}
		r, ok := a.returns[returnKey{o.exchange, o.key, o.msg.MessageId}]
		return r, ok
	}
}

// code is the AMQP reply code with which the broker closed the lane, or 0.
func (a *lane) code() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reason == nil {
		return 0
	}
	return a.reason.Code
}
