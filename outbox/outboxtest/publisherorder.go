package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// order: each key's messages are there in order, each once.
func (p *publisherTest) order() {
	topic := p.h.Topic(p)
	pub := p.h.New(p)
	const n, keys = 1000, 37
	for from := 0; from < n; from += 250 {
		p.all(pub, numbered(topic, from, 250, keys))
	}
	p.check(topic, n, keys, true)
}

func (p *publisherTest) oneKey() {
	topic := p.h.Topic(p)
	p.all(p.h.New(p), numbered(topic, 0, 300, 1))
	p.check(topic, 300, 1, true)
}

// manyCallers: a relay calls from a goroutine per partition.
func (p *publisherTest) manyCallers() {
	topics := []string{p.h.Topic(p), p.h.Topic(p)}
	pub := p.h.New(p)
	const callers, calls, size = 8, 8, 20
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for call := range calls {
				msgs := make([]outbox.Message, size)
				for i := range msgs {
					at := call*size + i
					msgs[i] = outbox.Message{
						ID: fmt.Sprint(caller, "-", at), Topic: topics[at%2], Key: fmt.Sprint("caller-", caller), Body: fmt.Append(nil, at/2),
					}
				}
				p.all(pub, msgs)
			}
		})
	}
	wg.Wait()
	for _, topic := range topics {
		p.check(topic, callers*calls*size/2, callers, true)
	}
}

// contextEndsAmid: a caller who goes away gets an answer soon, and what he was
// told to be there is there.
func (p *publisherTest) contextEndsAmid() {
	topic := p.h.Topic(p)
	pub := p.h.New(p)
	const n, keys = 400, 20
	p.all(pub, numbered(topic, 0, keys, keys)) // there is a connection
	todo := numbered(topic, keys, n-keys, keys)
	for pause := time.Duration(0); len(todo) > 0 && pause < 10*time.Millisecond; pause += time.Millisecond {
		ctx, cancel := context.WithTimeout(p.Context(), pause)
		begin := time.Now()
		todo = p.left(todo, p.publishCtx(ctx, pub, todo))
		cancel()
		if d := time.Since(begin); d > publishPatience/2 {
			p.Errorf("Publish took %v, its context ended after %v", d, pause)
		}
	}
	p.all(pub, todo)
	p.check(topic, n, keys, false)
}

// restart ends the server amid the work of several callers: what was
// acknowledged before is there after, and first occurrences are in order.
func (p *publisherTest) restart(restart func()) {
	topic := p.h.Topic(p)
	pub := p.h.New(p)
	const callers, keys, least = 4, 5, 300
	var wg sync.WaitGroup
	restarted := make(chan struct{})
	sent := make([]int, callers)
	for caller := range callers {
		wg.Go(func() {
			over := false
			for !over || sent[caller] < least {
				select {
				case <-restarted:
					over = true // one more, with the new server
				default:
				}
				msgs := numbered(topic, sent[caller], 50, keys)
				for i := range msgs {
					msgs[i].ID = fmt.Sprint(caller, "-", msgs[i].ID)
					msgs[i].Key = fmt.Sprint(caller, "-", msgs[i].Key)
				}
				p.all(pub, msgs)
				if p.Failed() {
					return
				}
				sent[caller] += len(msgs)
			}
		})
	}
	time.Sleep(time.Duration(rand.N(int64(200 * time.Millisecond)))) // any moment will do
	restart()
	close(restarted)
	wg.Wait()
	total := 0
	for _, n := range sent {
		total += n
	}
	p.check(topic, total, callers*keys, false)
}

// numbered makes n messages, from a number on, over some keys; the body is the
// number within the key.
func numbered(topic string, from, n, keys int) []outbox.Message {
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		at := from + i
		msgs[i] = outbox.Message{
			ID: fmt.Sprint("id-", at), Topic: topic, Key: fmt.Sprint("key-", at%keys), Body: fmt.Append(nil, at/keys), CreatedAt: time.Now(),
		}
	}
	return msgs
}

// check wants n numbered messages, over keys: first occurrences in order, and
// without duplicates where once is set.
func (p *publisherTest) check(topic string, n, keys int, once bool) {
	p.Helper()
	all := p.h.Read(p, topic)
	msgs := first(all)
	next := map[string]int{}
	for _, m := range msgs {
		if want := fmt.Sprint(next[m.Key]); string(m.Body) != want {
			p.Fatalf("key %s has %s, want %s", m.Key, m.Body, want)
		}
		next[m.Key]++
	}
	if len(msgs) != n || len(next) != keys {
		p.Errorf("%d messages of %d keys, want %d of %d", len(msgs), len(next), n, keys)
	}
	if twice := len(all) - len(msgs); once && twice > 0 {
		p.Errorf("%d messages are there twice though nothing went wrong", twice)
	} else if twice > 0 {
		p.Logf("%d of %d messages are there twice", twice, n)
	}
}

// first drops what came again.
func first(msgs []outbox.Message) []outbox.Message {
	seen := map[string]bool{}
	var out []outbox.Message
	for _, m := range msgs {
		if !seen[m.ID] {
			seen[m.ID] = true
			out = append(out, m)
		}
	}
	return out
}

// ids are those of a key's messages.
func ids(msgs []outbox.Message, key string) string {
	var out []string
	for _, m := range msgs {
		if m.Key == key {
			out = append(out, m.ID)
		}
	}
	return strings.Join(out, " ")
}

// all publishes as a relay does: what failed again, until all is acknowledged.
func (p *publisherTest) all(pub outbox.Publisher, msgs []outbox.Message) {
	p.Helper()
	var errs []error
	for deadline := time.Now().Add(publishPatience); len(msgs) > 0; {
		if time.Now().After(deadline) {
			p.Errorf("%d messages are not acknowledged after %v: %v", len(msgs), publishPatience, errors.Join(errs...))
			return
		}
		errs = p.publish(pub, msgs)
		if msgs = p.left(msgs, errs); len(msgs) > 0 {
			time.Sleep(5 * time.Millisecond) // a relay's backoff
		}
	}
}

// left are the messages that failed.
func (p *publisherTest) left(msgs []outbox.Message, errs []error) []outbox.Message {
	if errs == nil {
		return nil
	}
	var rest []outbox.Message
	for i, m := range msgs {
		if errs[i] != nil {
			rest = append(rest, m)
		}
	}
	return rest
}

func (p *publisherTest) publish(pub outbox.Publisher, msgs []outbox.Message) []error {
	p.Helper()
	return p.publishCtx(p.Context(), pub, msgs)
}

// publishCtx publishes, and checks what holds for every answer.
func (p *publisherTest) publishCtx(ctx context.Context, pub outbox.Publisher, msgs []outbox.Message) []error {
	p.Helper()
	errs := pub.Publish(ctx, msgs)
	if errs != nil && len(errs) != len(msgs) {
		p.Errorf("%d results for %d messages", len(errs), len(msgs))
		return make([]error, len(msgs))
	}
	failed := map[[2]string]bool{}
	for i, err := range errs {
		key := [2]string{msgs[i].Topic, msgs[i].Key}
		switch {
		case err != nil:
			failed[key] = msgs[i].Key != ""
		case failed[key]:
			p.Errorf("message %q was acknowledged though an earlier one of its key failed: %v", msgs[i].ID, errors.Join(errs...))
		}
	}
	return errs
}

func (p *publisherTest) until(what string, ok func() bool) {
	p.Helper()
	for deadline := time.Now().Add(publishPatience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Fatalf("not within %v: %s", publishPatience, what)
		}
	}
}
