package sdk_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
	"github.com/amends-dev/amends/tcc"
)

var noLog = slog.New(slog.DiscardHandler)

// traced is an application whose spans stay in the process.
type traced struct {
	*sdktest.World
	spans    *tracetest.InMemoryExporter
	provider *sdktrace.TracerProvider
	client   *sdk.Client
}

func newTraced(t *testing.T) *traced {
	t.Helper()
	w := &traced{World: sdktest.New(t, nil), spans: tracetest.NewInMemoryExporter()}
	w.provider = sdktrace.NewTracerProvider(sdktrace.WithSyncer(w.spans))
	w.client = sdk.NewClient(w.Conn(), &sdk.ClientConfig{Logger: noLog, TracerProvider: w.provider})
	return w
}

func (w *traced) participant(t *testing.T, service string) (*sdk.Participant, *sql.DB) {
	t.Helper()
	db := w.DB(service)
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	return sdk.NewParticipant(service, db, outbox.SQLite, &sdk.ParticipantConfig{Logger: noLog, TracerProvider: w.provider}), db
}

// named returns the spans of a name that have ended, the oldest first.
func (w *traced) named(name string) (found tracetest.SpanStubs) {
	for _, s := range w.spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// await waits until n spans of a name have ended.
func (w *traced) await(t *testing.T, name string, n int) tracetest.SpanStubs {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		if found := w.named(name); len(found) >= n {
			return found
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatalf("of %q there are %d spans, want %d", name, len(w.named(name)), n)
	return nil
}

func childOf(t *testing.T, child, parent tracetest.SpanStub) {
	t.Helper()
	if child.SpanContext.TraceID() != parent.SpanContext.TraceID() || child.Parent.SpanID() != parent.SpanContext.SpanID() {
		t.Errorf("%q is not a child of %q: trace %v, parent %v; want %v, %v", child.Name, parent.Name,
			child.SpanContext.TraceID(), child.Parent.SpanID(), parent.SpanContext.TraceID(), parent.SpanContext.SpanID())
	}
}

func attributeOf(s tracetest.SpanStub, key attribute.Key) string {
	i := slices.IndexFunc(s.Attributes, func(kv attribute.KeyValue) bool { return kv.Key == key })
	if i < 0 {
		return ""
	}
	return s.Attributes[i].Value.String()
}

// One trace holds the start, the calls of two coordinators (one dies between
// them), the message that a handler wrote and what its consumer did.
func TestOneTraceThroughEverything(t *testing.T) {
	w := newTraced(t)
	place, pay := saga.NewAction[string, string]("orders.place"), saga.NewAction[string, string]("orders.pay")
	p, db := w.participant(t, "orders")
	box := outbox.New(outbox.SQLite, &outbox.Config{Logger: noLog})
	entered, gate := make(chan struct{}, 1), make(chan struct{})
	sdk.HandleSaga(p, place, func(ctx context.Context, tx *sql.Tx, id string) (string, error) {
		entered <- struct{}{}
		<-gate
		return "", box.Write(ctx, tx, outbox.Message{Topic: "orders.placed", Key: id, Headers: map[string]string{"a": "b"}})
	}, func(context.Context, *sql.Tx, string, string) error { return nil })
	sdk.HandleSaga(p, pay, func(context.Context, *sql.Tx, string) (string, error) {
		return "", sdk.Refuse(errors.New("no money"))
	}, func(context.Context, *sql.Tx, string, string) error { return nil })
	w.Attend(p)

	s := saga.Define("order", func(b *saga.Builder, id string) {
		b.Step("place", place.With(id))
		b.Step("pay", pay.With(id))
	})
	ctx, root := w.provider.Tracer("app").Start(t.Context(), "request")
	run, err := sdk.Start(ctx, w.client, s, "A-17", &sdk.StartConfig{GID: "A-17"})
	if err != nil {
		t.Fatal(err)
	}
	root.End()
	<-entered
	w.Crash()
	close(gate)
	var back *sdk.RolledBackError
	if err := run.Wait(t.Context()); !errors.As(err, &back) {
		t.Fatal(err)
	}

	start := w.await(t, "start saga order", 1)[0]
	childOf(t, start, w.await(t, "request", 1)[0])
	for name, want := range map[string]string{
		"do orders.place": "ok", "do orders.pay": "refused", "undo orders.place": "ok", "undo orders.pay": "ok",
	} {
		call := w.await(t, name, 1)[0]
		childOf(t, call, start)
		if got := attributeOf(call, "amends.outcome"); got != want || attributeOf(call, "amends.gid") != "A-17" || call.Status.Code == codes.Error {
			t.Errorf("%q: outcome %q, attributes %v, status %v", name, got, call.Attributes, call.Status)
		}
	}
	if n := len(w.await(t, "do orders.place", 2)); n != 2 {
		t.Errorf("%d spans of the call that was asked again, want 2", n)
	}
	childOf(t, w.consume(t, box, db), w.named("do orders.place")[0])
}

// consume relays the outbox to a broker and returns the span of a consumer
// whose first attempt fails.
func (w *traced) consume(t *testing.T, box *outbox.Outbox, db *sql.DB) tracetest.SpanStub {
	t.Helper()
	broker, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Logger: noLog})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	pub, err := outbox.NewKafka([]string{broker.Addr()}, &outbox.KafkaConfig{CreateTopics: true, Logger: noLog})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	failed := false
	_, other := w.participant(t, "mail")
	consumer, err := inbox.NewConsumer([]string{broker.Addr()}, "mail", []string{"orders.placed"}, other, outbox.SQLite,
		func(_ context.Context, _ *sql.Tx, m outbox.Message) error {
			if m.Headers["a"] != "b" {
				t.Errorf("headers are %v", m.Headers)
			}
			if !failed {
				failed = true
				return errors.New("later")
			}
			return nil
		}, &inbox.ConsumerConfig{CreateTopics: true, Logger: noLog, TracerProvider: w.provider})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return outbox.NewRelay(box, db, pub, &outbox.RelayConfig{Logger: noLog}).Run(ctx)
	})
	g.Go(func() error { return consumer.Run(ctx) })
	spans := w.await(t, "process orders.placed", 2)
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if spans[0].Status.Code != codes.Error || spans[1].Status.Code == codes.Error || attributeOf(spans[1], "messaging.message.id") == "" {
		t.Errorf("the attempts are %+v", spans)
	}
	return spans[1]
}

func TestTraceOfTCC(t *testing.T) {
	w := newTraced(t)
	seat := tcc.NewAction[string, string]("flights.seat")
	p, _ := w.participant(t, "flights")
	fine := func(context.Context, *sql.Tx, string, string) error { return nil }
	sdk.HandleTCC(p, seat, func(context.Context, *sql.Tx, string) (string, error) { return "", nil }, fine, fine)
	w.Attend(p)
	for limit := time.Now().Add(20 * time.Second); ; {
		err := sdk.RunTCC(t.Context(), w.client, "trip", func(ctx context.Context, tc *sdk.TCC) error {
			_, err := sdk.Try(ctx, tc, seat, "12A")
			return err
		}, nil)
		if err == nil {
			break
		}
		if w.spans.Reset(); time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	trip := w.await(t, "tcc trip", 1)[0]
	childOf(t, w.await(t, "try flights.seat", 1)[0], trip)
	childOf(t, w.await(t, "confirm flights.seat", 1)[0], trip)
}

// A saga that StartTx starts is in the trace of whoever wrote its row.
func TestTraceOfStartTx(t *testing.T) {
	w := newTraced(t)
	place := saga.NewAction[string, string]("orders.place")
	p, db := w.participant(t, "orders")
	sdk.HandleSaga(p, place, func(context.Context, *sql.Tx, string) (string, error) { return "", nil }, nil)
	w.Attend(p)
	box := outbox.New(outbox.SQLite, &outbox.Config{Logger: noLog})
	s := saga.Define("order", func(b *saga.Builder, id string) { b.Step("place", place.With(id)) })

	ctx, root := w.provider.Tracer("app").Start(t.Context(), "request")
	err := outbox.InTx(ctx, db, nil, func(tx *sql.Tx) error {
		_, err := sdk.StartTx(ctx, box, tx, s, "A-17", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	root.End()
	relay, cancel := context.WithCancel(t.Context())
	g, relay := errgroup.WithContext(relay)
	g.Go(func() error {
		return outbox.NewRelay(box, db, sdk.NewStarter(w.client), &outbox.RelayConfig{Logger: noLog}).Run(relay)
	})
	childOf(t, w.await(t, "do orders.place", 1)[0], w.await(t, "request", 1)[0])
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
