package gateway_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/gateway"
	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// open begins a watch and returns its lines.
func open(t *testing.T, target string, headers ...string) (answer, *bufio.Scanner) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return answer{resp.StatusCode, resp.Header}, bufio.NewScanner(resp.Body)
}

// next returns the next line that begins with a prefix, without it.
func next(t *testing.T, lines *bufio.Scanner, prefix string) string {
	t.Helper()
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok && lines.Text() != "" {
			return rest
		}
	}
	t.Fatalf("the stream ended before a line with %q: %v", prefix, lines.Err())
	return ""
}

func finish(tx *amendsv1.Transaction) {
	tx.State, tx.FinishTime = amendsv1.State_STATE_COMMITTED, timestamppb.New(start)
}

func event(kind string) *amendsv1.Event {
	return gatewaytest.Event(start, kind, map[string]any{"n": 1})
}

func TestWatchLines(t *testing.T) {
	fake, server := serve(t, nil)
	fake.Put(running("a/1"))
	fake.Change("a/1", nil, event("started"))
	resp, lines := open(t, server.URL+"/v1/transactions/a%2F1:watch")
	if got := resp.header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("content type %q", got)
	}
	kind := func(line string) string {
		var got struct {
			Result struct{ Event struct{ Type, Seq string } }
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return got.Result.Event.Seq + got.Result.Event.Type
	}
	if got := kind(next(t, lines, "")); got != "1started" {
		t.Errorf("first event %s", got)
	}
	fake.Change("a/1", finish, event("replied")) // after the first was read: it is live
	if got := kind(next(t, lines, "")); got != "2replied" {
		t.Errorf("second event %s", got)
	}
	if lines.Scan() {
		t.Errorf("a line after the end: %q", lines.Text())
	}
}

func TestWatchServerSentEvents(t *testing.T) {
	fake, server := serve(t, nil)
	fake.Put(running("a"))
	fake.Change("a", nil, event("started"), event("tried"), event("replied"))
	const sse = "text/event-stream"
	resp, lines := open(t, server.URL+"/v1/transactions/a:watch?afterSeq=1", "Accept", sse, "Last-Event-ID", "2")
	if got := resp.header.Get("Content-Type"); got != sse {
		t.Errorf("content type %q", got)
	}
	if id := next(t, lines, "id: "); id != "3" {
		t.Errorf("resumed at %s, want 3", id)
	}
	if data := next(t, lines, "data: "); !strings.Contains(data, `"replied"`) {
		t.Errorf("data %s", data)
	}
	fake.Change("a", finish, event("ended"))
	if id := next(t, lines, "id: "); id != "4" {
		t.Errorf("live event %s, want 4", id)
	}
	next(t, lines, "event: end")

	// An EventSource that comes back after the end is told to stay away.
	if resp, _ := open(t, server.URL+"/v1/transactions/a:watch", "Accept", sse, "Last-Event-ID", "4"); resp.status != http.StatusNoContent {
		t.Errorf("status %d, want 204", resp.status)
	}
}

func TestWatchKeepsAlive(t *testing.T) {
	fake, server := serve(t, &gateway.Config{KeepAlive: time.Millisecond})
	fake.Put(running("a"))
	resp, lines := open(t, server.URL+"/v1/transactions/a:watch", "Accept", "text/event-stream")
	if resp.status != http.StatusOK {
		t.Errorf("status %d", resp.status)
	}
	next(t, lines, ": alive")
	next(t, lines, ": alive")
}

func TestWatchRefusals(t *testing.T) {
	fake, server := serve(t, nil)
	fake.Put(running("a"))
	for path, want := range map[string]string{
		"/v1/transactions/b:watch":                "NOT_FOUND",
		"/v1/transactions/a:watch?afterSeq=x":     "INVALID_ARGUMENT",
		"/v1/transactions/a:watch?afterSeq=-1":    "INVALID_ARGUMENT",
		"/v1/transactions/a:watch?after_seq=%201": "INVALID_ARGUMENT",
	} {
		resp, got := ask(t, "GET", server.URL+path, "", "Accept", "text/event-stream")
		if got["reason"] != want || resp.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v, want %s", path, got, want)
		}
	}
}
