package outbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type publishAllFunc func(ctx context.Context, msgs []Message) []error

func (f publishAllFunc) Publish(ctx context.Context, msgs []Message) []error { return f(ctx, msgs) }

// A destination that hangs until its context ends starves the others of the same page.
func TestRouteIsolatesDestinations(t *testing.T) {
	hung := publishAllFunc(func(ctx context.Context, msgs []Message) []error {
		<-ctx.Done()
		return sameError(len(msgs), ctx.Err())
	})
	healthy := PublishFunc(func(ctx context.Context, _ Message) error { return ctx.Err() })
	r := Route(map[string]Publisher{"start": healthy}, hung)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	errs := r.Publish(ctx, []Message{{ID: "1", Topic: "orders", Key: "a"}, {ID: "2", Topic: "start", Key: "b"}})
	if errs[0] == nil || errs[1] != nil {
		t.Errorf("results %v: want only the first to fail", errs)
	}
}

// B1 in a relay: while Kafka hangs, a saga in the same page is never started, as both are always due together.
func TestRelayStarvesTheOtherDestination(t *testing.T) {
	p, log := newTestPartition(t)
	p.r.cfg.MaxBackoff = 20 * time.Millisecond
	hung := publishAllFunc(func(ctx context.Context, msgs []Message) []error {
		<-ctx.Done()
		return sameError(len(msgs), ctx.Err())
	})
	p.r.pub = Route(map[string]Publisher{"kafka": hung}, PublishFunc(func(ctx context.Context, m Message) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return log.publish(ctx, m)
	}))
	p.lease.length = 400 * time.Millisecond
	p.lease.until = time.Now().Add(p.lease.length)
	insert(t, p, 1, "a")
	insert(t, p, 2, "b")
	if _, err := p.r.db.Exec(`UPDATE amends_outbox_0 SET topic = 'kafka' WHERE id = 1`); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(4 * time.Second); log.ids() == "" && time.Now().Before(end); {
		if _, err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got := log.ids(); got != "2" {
		t.Errorf("published %q, want 2: it waits for the outage of another destination (attempts of b: %d)", got, p.w.attempts("b"))
	}
}

// A call keeps the turns of partitions that it is done with, while another of its partitions is down.
func TestDoneLanesGiveTheirTurn(t *testing.T) {
	c := startCluster(t, 3)
	p := newPublisher(t, KafkaConfig{}, c.ListenAddrs()...)
	h := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{1}, Err: kerr.NotEnoughReplicas, Count: -1})
	defer h.Remove()
	var down, up []Message
	for _, m := range series("orders", 0, 60, 17) {
		if partitionOf(&m, []int{0, 1, 2}) == 1 {
			down = append(down, m)
		} else {
			up = append(up, m)
		}
	}
	half := len(up) / 2
	first := make(chan []error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { first <- p.Publish(ctx, append(append([]Message{}, up[:half]...), down...)) }()
	for held := 0; held != 1; time.Sleep(time.Millisecond) { // until it has only the one turn that it waits with
		held = 0
		for part := range 3 {
			held += len(p.partition("orders", part).turn)
		}
	}
	soon, tooLate := context.WithTimeout(t.Context(), 5*time.Second)
	defer tooLate()
	if errs := p.Publish(soon, up[half:]); errs != nil {
		t.Error("healthy partitions wait for one that is down: ", errors.Join(errs...))
	}
	cancel()
	<-first
}
