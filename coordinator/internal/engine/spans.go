package engine

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// spans tells what the engine does in the traces in which transactions were
// started. Of a transaction that was started in none it tells nothing: each of
// its spans would be a trace of its own.
type spans struct {
	tracer trace.Tracer // nil: nothing is told
}

// tells reports whether there is somebody to tell of a transaction.
func (s spans) tells(traceparent string) bool { return s.tracer != nil && traceparent != "" }

// begin makes a span that began a while ago.
func (s spans) begin(traceparent, name string, rec *store.Record, at time.Time) trace.Span {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
	_, gid := wire.Split(rec.GID)
	//nolint:spancheck // the caller ends it
	_, span := s.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithSpanKind(trace.SpanKindInternal), trace.WithAttributes(
		attribute.String("amends.gid", gid), attribute.String("amends.name", rec.Name), attribute.String("amends.namespace", rec.Namespace)))
	return span //nolint:spancheck // the caller ends it
}

// committed tells of a transition that became durable now: a start from when it
// was asked for, the others from when they were ready to be committed.
func (s spans) committed(traceparent string, rec *store.Record, events []store.Event, now time.Time) {
	if !s.tells(traceparent) {
		return
	}
	state := strings.ToLower(txn.State(rec.State).String())
	name, at := "commit "+state, rec.UpdatedAt
	if rec.Version == 1 {
		name, at = "coordinate "+rec.Kind, rec.CreatedAt
	}
	span := s.begin(traceparent, name, rec, at)
	span.SetAttributes(attribute.String("amends.state", state), attribute.Int64("amends.version", rec.Version))
	for i := range events {
		span.AddEvent(events[i].Type, trace.WithTimestamp(events[i].At))
	}
	span.End(trace.WithTimestamp(now))
}

// called tells of a call, from when it went out to its outcome.
func (s spans) called(t *tx, c *call, r txn.Replied, now time.Time) {
	if !s.tells(t.trace) {
		return
	}
	span := s.begin(t.trace, "call "+c.Op.String()+" "+c.Action, &t.rec, c.at)
	span.SetAttributes(attribute.String("amends.branch", c.Name), attribute.String("amends.op", c.Op.String()),
		attribute.Int("amends.attempt", c.Attempt), attribute.String("amends.outcome", r.Outcome.String()))
	if r.Outcome == txn.Unknown {
		span.SetStatus(codes.Error, r.Message)
	}
	span.End(trace.WithTimestamp(now))
}
