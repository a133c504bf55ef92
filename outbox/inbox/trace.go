package inbox

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/amends-dev/amends/outbox"
)

// tracerName is the instrumentation scope of our spans.
const tracerName = "github.com/amends-dev/amends/outbox/inbox"

// spanOf begins the span of one attempt to handle a message, in the trace that
// wrote it. The function ends it.
func (c *Consumer) spanOf(ctx context.Context, m outbox.Message) (context.Context, func(error)) {
	provider := c.cfg.TracerProvider
	if provider == nil {
		provider = otel.GetTracerProvider()
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(m.Headers))
	ctx, span := provider.Tracer(tracerName).Start(ctx, "process "+m.Topic, //nolint:spancheck // the function that is returned ends it
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			attribute.String("messaging.system", "kafka"), attribute.String("messaging.operation.type", "process"),
			attribute.String("messaging.destination.name", m.Topic), attribute.String("messaging.message.id", m.ID),
			attribute.String("messaging.consumer.group.name", c.group)))
	return ctx, func(err error) { //nolint:spancheck // the function that is returned ends it
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
