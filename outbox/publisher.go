package outbox

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Publisher hands messages to a log or another system.
//
// Publish answers one error per message, in order; nil instead of the slice
// means that all are acknowledged. A nil error says that the message is durable
// over there. An error that wraps ErrPoison says that it never will be: it goes
// by the relay's PoisonPolicy. Any other error is retried with backoff, for as
// long as it takes.
//
// For the order per key to hold, a Publisher that fails a message must not
// deliver later messages of the same key in the same call: it answers ErrHeld
// for them. Publish returns soon after ctx has ended. A relay calls it from one
// goroutine per partition, at most once at a time for each.
type Publisher interface {
	Publish(ctx context.Context, msgs []Message) []error
}

// ErrPoison marks an error of a Publisher that no retry will mend.
var ErrPoison = errors.New("outbox: the message can never be published")

// ErrHeld is a Publisher's answer for a message that it did not send because an
// earlier one of its key failed in the same call.
var ErrHeld = errors.New("outbox: held back behind an earlier message of its key")

// Poison marks err as permanent: errors.Is finds both ErrPoison and err.
// Poison(nil) is nil.
func Poison(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrPoison, err)
}

// PublishFunc is a Publisher that sends one message after the other and holds
// back the later ones of a key that failed.
type PublishFunc func(ctx context.Context, m Message) error

// Publish implements Publisher.
func (f PublishFunc) Publish(ctx context.Context, msgs []Message) []error {
	errs := make([]error, len(msgs))
	failed := map[string]bool{}
	for i, m := range msgs {
		if m.Key != "" && failed[m.Key] {
			errs[i] = ErrHeld
			continue
		}
		if errs[i] = f(ctx, m); errs[i] != nil {
			failed[m.Key] = true
		}
	}
	return errs
}

// Route is a Publisher that picks another one by the message's topic, and other
// for topics that byTopic does not name. With other nil such messages are
// poison. The order of messages of one key that go to different publishers is
// kept: after a failure the later ones are held, whatever their topic. Publishers
// are called concurrently, so that one that hangs holds up no other.
func Route(byTopic map[string]Publisher, other Publisher) Publisher {
	return &router{byTopic: byTopic, other: other}
}

type router struct {
	byTopic map[string]Publisher
	other   Publisher
}

// Publish implements Publisher. Messages of one destination are passed on
// together; only where a key changes its destination what came before it is
// published first, so that the order across destinations holds.
func (r *router) Publish(ctx context.Context, msgs []Message) []error {
	w := &wave{msgs: msgs, errs: make([]error, len(msgs)), failed: map[string]bool{}}
	w.clear()
	for i, m := range msgs {
		to := r.destination(m.Topic)
		if before, ok := w.keys[m.Key]; ok && m.Key != "" && before != to {
			w.publish(ctx, r)
			w.clear()
		}
		w.add(i, to)
	}
	w.publish(ctx, r)
	return w.errs
}

// destination names the publisher of a topic: the topic, or "" for the other one.
func (r *router) destination(topic string) string {
	if _, ok := r.byTopic[topic]; ok {
		return topic
	}
	return ""
}

func (r *router) publisher(destination string) Publisher {
	if p, ok := r.byTopic[destination]; ok {
		return p
	}
	return r.other
}

// wave is what can be published without regard to the order of destinations.
type wave struct {
	msgs   []Message
	errs   []error
	failed map[string]bool // keys, over all waves

	order []string          // destinations
	at    map[string][]int  // the messages of each
	keys  map[string]string // where each key goes
}

func (w *wave) clear() {
	w.order, w.at, w.keys = nil, map[string][]int{}, map[string]string{}
}

func (w *wave) add(i int, to string) {
	if len(w.at[to]) == 0 {
		w.order = append(w.order, to)
	}
	w.at[to] = append(w.at[to], i)
	w.keys[w.msgs[i].Key] = to
}

// publish publishes the messages whose key has not failed yet.
func (w *wave) publish(ctx context.Context, r *router) {
	var g errgroup.Group // no destination waits for another
	for _, to := range w.order {
		var send []Message
		var at []int
		for _, i := range w.at[to] {
			if m := w.msgs[i]; m.Key != "" && w.failed[m.Key] {
				w.errs[i] = ErrHeld
			} else {
				send, at = append(send, m), append(at, i)
			}
		}
		if len(send) == 0 {
			continue
		}
		g.Go(func() error {
			for j, err := range publishAll(ctx, r.publisher(to), send) {
				w.errs[at[j]] = err // no two share an index
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no errors
	for _, at := range w.at {
		for _, i := range at {
			if w.errs[i] != nil {
				w.failed[w.msgs[i].Key] = true
			}
		}
	}
}

// publishAll calls a publisher and answers exactly one error per message,
// whatever the publisher answers.
func publishAll(ctx context.Context, p Publisher, msgs []Message) []error {
	if p == nil {
		return sameError(len(msgs), Poison(errors.New("no publisher takes this topic: add one to Route")))
	}
	errs := p.Publish(ctx, msgs)
	if errs == nil {
		return make([]error, len(msgs))
	}
	if len(errs) != len(msgs) {
		// Which were acknowledged cannot be told, so none was.
		return sameError(len(msgs), fmt.Errorf("outbox: publisher answered %d results for %d messages", len(errs), len(msgs)))
	}
	return errs
}

func sameError(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
