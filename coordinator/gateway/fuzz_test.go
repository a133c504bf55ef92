package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/amends-dev/amends/coordinator/gateway"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc"
)

// recorder is a connection that notes what it is asked for, and answers with a
// transaction of one branch.
type recorder struct {
	gid     string
	payload []byte
}

func (r *recorder) Invoke(_ context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	if named, ok := args.(interface{ GetGid() string }); ok {
		r.gid = named.GetGid()
	}
	if resp, ok := reply.(*amendsv1.GetTransactionResponse); ok {
		resp.Transaction = &amendsv1.Transaction{Branches: []*amendsv1.Branch{{Request: r.payload}}}
	}
	return nil
}

func (r *recorder) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams")
}

func fuzzed(f *testing.F, cfg *gateway.Config) (*recorder, http.Handler) {
	f.Helper()
	conn := &recorder{}
	h, err := gateway.New(conn, cfg)
	if err != nil {
		f.Fatal(err)
	}
	return conn, h
}

// FuzzGID: a gid of any characters arrives as it was sent.
func FuzzGID(f *testing.F) {
	for _, gid := range []string{"order-1", "a/b", "a:watch", "%2F", "100%", "..", "日本", "a\x00b", "//", ":"} {
		f.Add(gid)
	}
	conn, h := fuzzed(f, nil)
	f.Fuzz(func(t *testing.T, gid string) {
		if gid == "" || !utf8.ValidString(gid) {
			return // no gid: see txn.CheckName
		}
		for method, verb := range map[string]string{http.MethodGet: "", http.MethodPost: ":retryNow"} {
			r := httptest.NewRequest(method, "/v1/transactions/"+encodeURIComponent(gid)+verb, strings.NewReader("{}"))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			conn.gid = ""
			h.ServeHTTP(w, r)
			if conn.gid != gid {
				t.Errorf("%s: %q arrived as %q: %d %s", method, gid, conn.gid, w.Code, w.Body)
			}
		}
	})
}

// FuzzRequest: whatever is sent is answered.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v1/transactions?pageSize=1&filter=state+%3D+x", "", "application/json")
	f.Add("POST", "/v1/transactions/a/branches/b:skip", `{"reason":"x","etag":1}`, "application/json; charset=utf-8")
	f.Add("POST", "/v1/bulks", `{"verb":"VERB_ABORT","rate":"NaN"}`, "application/json")
	f.Add("GET", "/v1/transactions/a:watch?afterSeq=9", "", "text/event-stream")
	f.Add("DELETE", "/v1/%", "{", "")
	f.Add("POST", "/v1/outbox/messages/2+17:skip", `{"position":"1-1","reason":"x"}`, "application/json")
	f.Add("GET", "/v1/outbox/deadLetters/9?topic=%ff", "", "")
	_, coordinator := fuzzed(f, nil)
	relay, err := gateway.NewOutbox(&recorder{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, target, body, kind string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return // the server of package net/http refuses it
		}
		header := http.Header{"Content-Type": {kind}, "Accept": {kind}, "Last-Event-Id": {body}, "Amends-Namespace": {kind}}
		for _, h := range []http.Handler{coordinator, relay} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, (&http.Request{Method: method, URL: u, Header: header, Body: io.NopCloser(strings.NewReader(body))}).WithContext(t.Context()))
			if w.Code < http.StatusOK || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("answered with %d %v", w.Code, w.Header())
			}
		}
	})
}

// FuzzRedact: no payload gets past the mask whole, or stops the answer.
func FuzzRedact(f *testing.F) {
	const secret = "hunter2hunter2"
	f.Add([]byte(`{"password":"`+secret+`","n":1e999}`), false)
	f.Add([]byte(`[{"a":{"PassWord":["`+secret+`"]}}]`), false)
	f.Add([]byte("\xff"+secret), true)
	f.Add([]byte(`{} `+secret), true)
	conn, h := fuzzed(f, &gateway.Config{Redact: []string{"password"}})
	f.Fuzz(func(t *testing.T, payload []byte, broken bool) {
		conn.payload = payload
		if !broken {
			conn.payload = []byte(`{"password":"` + secret + `","rest":[` + strings.ReplaceAll(string(payload), secret, "") + `]}`)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/transactions/a?view=TRANSACTION_VIEW_FULL", nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if shown := requestOf(t, w.Body.Bytes()); !broken && strings.Contains(shown, secret) {
			t.Errorf("shown: %s", shown)
		}
	})
}
