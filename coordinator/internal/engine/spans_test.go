package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// TestSpans: what the engine does is told in the caller's trace, also by another
// engine after the first one has ended, and not where there is no trace.
func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := tracetest.NewInMemoryExporter()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(told)).Tracer("test")
		ctx, caller := tracer.Start(t.Context(), "caller")
		parent := caller.SpanContext()
		traceparent := fmt.Sprintf("00-%s-%s-01", parent.TraceID(), parent.SpanID())
		st := newStore()
		attempts := 0
		r := launch(t, st, &Config{Tracer: tracer}, func(c dispatch.Call) txn.Replied {
			if attempts++; attempts == 1 {
				return txn.Replied{Outcome: txn.Unknown, Message: "no bank"}
			}
			return txn.Replied{}
		})
		start := func(ctx context.Context, gid string) {
			t.Helper()
			for {
				_, _, err := r.StartSaga(ctx, wire.Key("shop", gid), steps(1), nil)
				if err == nil {
					return
				}
				if !errors.Is(err, errElsewhere) {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
		}
		start(WithTrace(ctx, traceparent), "told")
		for r.p.calls(txn.Do) < 2 {
			time.Sleep(time.Millisecond)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		r = launch(t, st.Reopen(), &Config{Tracer: tracer}, ok)
		start(t.Context(), "untold")
		r.wait(wire.Key("shop", "told"))
		r.wait(wire.Key("shop", "untold"))
		synctest.Wait()

		var got []string
		for _, s := range told.GetSpans() {
			attributes := attribute.NewSet(s.Attributes...)
			gid, _ := attributes.Value("amends.gid")
			outcome, _ := attributes.Value("amends.outcome")
			if s.Parent.SpanID() != parent.SpanID() || s.SpanContext.TraceID() != parent.TraceID() || gid.AsString() != "told" {
				t.Errorf("%s of %q is a child of %v in trace %v, want %v in %v", s.Name, gid.AsString(), s.Parent.SpanID(), s.SpanContext.TraceID(),
					parent.SpanID(), parent.TraceID())
			}
			if s.EndTime.Before(s.StartTime) || s.StartTime.IsZero() || (outcome.AsString() == "unknown") != (s.Status.Code == codes.Error) {
				t.Errorf("%s: %v to %v, %s, %v", s.Name, s.StartTime, s.EndTime, outcome.AsString(), s.Status)
			}
			got = append(got, s.Name+" "+outcome.AsString())
		}
		want := "[coordinate saga  call do svc.a unknown commit running  call do svc.a ok commit committed ]"
		if fmt.Sprint(got) != want {
			t.Errorf("spans:\n%v, want\n%v", got, want)
		}
	})
}

// BenchmarkSpansOff is what a transition costs that nobody is told of.
func BenchmarkSpansOff(b *testing.B) {
	rec := store.Record{GID: "g", Version: 2}
	for name, s := range map[string]spans{"no tracer": {}, "no trace": {tracer: sdktrace.NewTracerProvider().Tracer("test")}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.committed("", &rec, nil, time.Time{})
			}
		})
	}
}
