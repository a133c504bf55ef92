package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// firstSilence is how long the answer to a watch waits for a first event or a
// refusal, before it begins without either.
const firstSilence = 250 * time.Millisecond

// writeTime is how long a client may take to accept an event.
const writeTime = 30 * time.Second

// watch streams the audit events of a transaction: as lines of JSON, or as
// Server-Sent Events to whoever accepts those. An event's id is its number, so
// that a client which lost the connection goes on behind the last one it saw.
func (g *gateway) watch(w http.ResponseWriter, r *http.Request, params map[string]string) {
	after, err := afterSeq(r)
	if err != nil {
		writeError(w, err)
		return
	}
	group, ctx := errgroup.WithContext(r.Context())
	ctx, err = runtime.AnnotateContext(ctx, g.mux, r, amendsv1.AdminService_WatchTransaction_FullMethodName)
	if err != nil {
		writeError(w, err)
		return
	}
	stream, err := g.admin.WatchTransaction(ctx, &amendsv1.WatchTransactionRequest{Gid: params["gid"], AfterSeq: after})
	if err != nil {
		writeError(w, err)
		return
	}
	out := &eventWriter{w: w, control: http.NewResponseController(w), codec: g.codec, sse: acceptsSSE(r)}
	events := make(chan *amendsv1.WatchTransactionResponse)
	group.Go(func() error {
		defer close(events)
		return receive(ctx, stream, events)
	})
	group.Go(func() error { return out.copy(events, g.cfg.KeepAlive) })
	out.end(group.Wait())
}

// afterSeq is where to go on: the greater of what the URL and the browser say.
func afterSeq(r *http.Request) (int64, error) {
	query := r.URL.Query()
	var after int64
	for name, s := range map[string]string{
		"afterSeq": query.Get("afterSeq"), "after_seq": query.Get("after_seq"),
		"Last-Event-ID": r.Header.Get("Last-Event-ID"),
	} {
		if s == "" {
			continue
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return 0, refuse(http.StatusBadRequest, amendsv1.ErrInvalidArgument.Reason,
				"%s is %q: it must be the number of an event", name, s)
		}
		after = max(after, n)
	}
	return after, nil
}

func acceptsSSE(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/event-stream" {
			return true
		}
	}
	return false
}

// receive ends with nil when the transaction has, after its last event.
func receive(ctx context.Context, stream grpc.ServerStreamingClient[amendsv1.WatchTransactionResponse],
	to chan<- *amendsv1.WatchTransactionResponse,
) error {
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case to <- resp:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// eventWriter writes events in one of the two forms.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	codec   runtime.Marshaler
	sse     bool
	begun   bool
	lost    bool // the client is
}

// copy writes events until there are no more, and keeps the connection from
// looking dead.
func (e *eventWriter) copy(events <-chan *amendsv1.WatchTransactionResponse, keepAlive time.Duration) error {
	silence := time.NewTimer(min(firstSilence, keepAlive))
	defer silence.Stop()
	for {
		var err error
		select {
		case resp, ok := <-events:
			if !ok {
				return nil
			}
			err = e.event(resp)
		case <-silence.C:
			err = e.alive()
		}
		if err != nil {
			e.lost = true
			return err
		}
		silence.Reset(keepAlive)
	}
}

func (e *eventWriter) event(resp *amendsv1.WatchTransactionResponse) error {
	if !e.sse {
		return e.line(map[string]any{"result": resp})
	}
	data, err := e.codec.Marshal(resp.GetEvent())
	if err != nil {
		return fmt.Errorf("gateway: event %d: %w", resp.GetEvent().GetSeq(), err)
	}
	return e.send(fmt.Sprintf("id: %d\ndata: %s\n\n", resp.GetEvent().GetSeq(), data))
}

func (e *eventWriter) line(v any) error {
	data, err := e.codec.Marshal(v)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return e.send(string(data) + "\n")
}

// alive sends what no client takes for an event: a comment, or an empty line.
func (e *eventWriter) alive() error {
	if e.sse {
		return e.send(": alive\n\n")
	}
	return e.send("\n")
}

func (e *eventWriter) send(text string) error {
	if !e.begun {
		e.begun = true
		kind := "application/x-ndjson"
		if e.sse {
			kind = "text/event-stream"
		}
		e.w.Header().Set("Content-Type", kind)
		e.w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events back
	}
	// A writer without deadlines or flushing is a test's.
	if err := e.control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := io.WriteString(e.w, text); err != nil {
		return err
	}
	if err := e.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// end says why there are no more events. What cannot be sent is dropped: the
// client notices the end of the stream.
func (e *eventWriter) end(err error) {
	p, _ := problemOf(err)
	// The connection may serve another request, to which this deadline is not due.
	defer func() { _ = e.control.SetWriteDeadline(time.Time{}) }()
	switch {
	case e.lost:
	case err != nil && !e.begun:
		writeError(e.w, err)
	case err != nil && e.sse:
		_ = e.named("failure", p)
	case err != nil:
		_ = e.line(map[string]any{"error": p})
	case e.sse && !e.begun:
		e.w.WriteHeader(http.StatusNoContent) // tells an EventSource to stay away
	case e.sse:
		_ = e.named("end", struct{}{})
	}
}

func (e *eventWriter) named(name string, v any) error {
	data, err := e.codec.Marshal(v)
	if err != nil {
		return err
	}
	return e.send(fmt.Sprintf("event: %s\ndata: %s\n\n", name, data))
}
