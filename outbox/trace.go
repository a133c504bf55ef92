package outbox

import (
	"context"
	"maps"

	"go.opentelemetry.io/otel/propagation"
)

// traced gives messages the trace of ctx, in the headers traceparent and
// tracestate, unless the caller has set a traceparent or there is none. It
// comes after validation: tracing refuses no message.
func traced(ctx context.Context, msgs []Message) {
	fields := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, fields)
	if len(fields) == 0 {
		return
	}
	for i := range msgs {
		if _, own := msgs[i].Headers["traceparent"]; own || len(msgs[i].Headers)+len(fields) > MaxHeaders {
			continue
		}
		headers := make(map[string]string, len(msgs[i].Headers)+len(fields)) // the map is the caller's
		maps.Copy(headers, msgs[i].Headers)
		maps.Copy(headers, fields)
		msgs[i].Headers = headers
	}
}
