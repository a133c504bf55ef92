package sdk

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// tracerName is the instrumentation scope of our spans.
const tracerName = "github.com/amends-dev/amends/sdk"

// traceparentKey is the W3C header, as propagators know it.
const traceparentKey = "traceparent"

// tracerOf is a provider's tracer, or the application's own, which makes no
// spans until the application sets one with otel.SetTracerProvider.
func tracerOf(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		p = otel.GetTracerProvider()
	}
	return p.Tracer(tracerName)
}

// traceparentOf is the trace of ctx as it travels; empty when there is none.
func traceparentOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparentKey]
}

// spanOf begins a client's span about a transaction. The function ends it with
// how that went.
func (c *Client) spanOf(ctx context.Context, what, name, gid string) (context.Context, func(error)) {
	ctx, span := c.tracer.Start(ctx, what+" "+name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes( //nolint:spancheck // the function that is returned ends it
		attribute.String("amends.gid", gid), attribute.String("amends.name", name)))
	return ctx, func(err error) { endSpan(span, err) } //nolint:spancheck // the function that is returned ends it
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// spanOf begins the span of a call, in the trace that its transaction was
// started in. The function ends it with the outcome: what failed is an error, a
// refusal is an answer.
func (p *Participant) spanOf(ctx context.Context, c *call) (context.Context, func(*amendsv1.Outcome, error)) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparentKey: c.traceparent})
	ctx, span := p.tracer.Start(ctx, fmt.Sprintf("%s %s", c.info.Op, c.info.Action), //nolint:spancheck // the function that is returned ends it
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			attribute.String("amends.gid", c.info.GID), attribute.String("amends.branch", c.info.Branch),
			attribute.String("amends.op", c.info.Op.String()), attribute.String("amends.action", c.info.Action),
			attribute.Int("amends.attempt", c.info.Attempt), attribute.String("amends.service", c.info.Service)))
	return ctx, func(out *amendsv1.Outcome, err error) { //nolint:spancheck // the function that is returned ends it
		o := txn.Unknown
		if out != nil {
			o = txn.Outcome(out.GetCode()) // the numbers are the same, as a test checks
		}
		span.SetAttributes(attribute.String("amends.outcome", o.String()))
		if o == txn.Refused {
			span.AddEvent("refused", trace.WithAttributes(attribute.String("amends.reason", err.Error())))
			err = nil
		}
		endSpan(span, err)
	}
}
