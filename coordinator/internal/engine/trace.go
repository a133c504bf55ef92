package engine

import "context"

type traceKey struct{}

// WithTrace returns a context under which what is started is called with a W3C
// trace context, as it stands: empty is none. The engine makes no spans; it
// keeps the trace with the transaction, so that calls carry it after a crash,
// too.
func WithTrace(ctx context.Context, traceparent string) context.Context {
	return context.WithValue(ctx, traceKey{}, traceparent)
}

func traceOf(ctx context.Context) string {
	traceparent, _ := ctx.Value(traceKey{}).(string) // absent: none
	return traceparent
}
