package outbox

import (
	"context"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

const wantParent = "00-01000000000000000000000000000000-0200000000000000-01"

func tracedContext(t *testing.T) context.Context {
	t.Helper()
	state, err := trace.ParseTraceState("a=b")
	if err != nil {
		t.Fatal(err)
	}
	return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state,
	}))
}

func TestTracedHeaders(t *testing.T) {
	full := map[string]string{}
	for i := range MaxHeaders {
		full[fmt.Sprint(i)] = "x"
	}
	callers := map[string]string{"a": "b"}
	msgs := []Message{
		{}, {Headers: callers}, {Headers: map[string]string{"traceparent": "own"}}, {Headers: full},
	}
	traced(tracedContext(t), msgs)
	for i, want := range []string{wantParent, wantParent, "own", ""} {
		if got := msgs[i].Headers["traceparent"]; got != want {
			t.Errorf("message %d: traceparent %q, want %q", i, got, want)
		}
	}
	if msgs[0].Headers["tracestate"] != "a=b" || msgs[1].Headers["a"] != "b" {
		t.Errorf("headers are %v and %v", msgs[0].Headers, msgs[1].Headers)
	}
	if len(callers) != 1 || len(full) != MaxHeaders {
		t.Errorf("the caller's maps were changed: %v, %d headers", callers, len(full))
	}
}

func TestUntracedHeaders(t *testing.T) {
	msgs := []Message{{}}
	if traced(t.Context(), msgs); msgs[0].Headers != nil {
		t.Errorf("headers are %v without a trace", msgs[0].Headers)
	}
}
