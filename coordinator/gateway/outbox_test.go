package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amends-dev/amends/coordinator/gateway"
	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// serveOutbox starts a gateway before a fake relay with two messages waiting and
// a dead letter.
func serveOutbox(t *testing.T, cfg *gateway.Config) (*gatewaytest.Outbox, string) {
	t.Helper()
	fake := gatewaytest.NewOutbox(nil,
		[]*amendsv1.OutboxMessage{{Position: "1-7", Id: "a", Topic: "orders", Key: "k/1"}, {Position: "2+17", Id: "d", Topic: "orders"}, {Position: "1-8", Id: "b", Topic: "bills", Key: "k/1"}},
		[]*amendsv1.DeadLetter{{
			Number: 12, Id: "c", Topic: "orders", Key: "k", Body: []byte(`{"card":{"cvc":123},"cents":500}`),
			Headers: map[string]string{"X-Card": "4111", "source": "shop"},
		}}, nil)
	h, err := gateway.NewOutbox(fake.Serve(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return fake, server.URL
}

// TestOutbox asks each request of OutboxService.
func TestOutbox(t *testing.T) {
	fake, at := serveOutbox(t, nil)
	for _, c := range []struct {
		method, path, body string
		status             int
		field, want        string
	}{
		{"GET", "/v1/outbox", "", 200, "messages", "3"},
		{"POST", "/v1/outbox/messages/2+17:skip", `{"reason":"r","validateOnly":true}`, 200, "act", "position 2+17"},
		{"POST", "/v1/outbox/messages/2%2B17:skip", `{"reason":"r","validateOnly":true}`, 200, "act", "position 2+17"},
		{"GET", "/v1/outbox/messages?topic=bills", "", 200, "messages", "1-8"},
		{"GET", "/v1/outbox/blockedKeys?pageSize=1", "", 200, "blockedKeys", "[]"},
		{"GET", "/v1/outbox/deadLetters?key=k", "", 200, "deadLetters", "12"},
		{"GET", "/v1/outbox/deadLetters/12", "", 200, "deadLetter", "eyJjYXJkIjp7ImN2YyI6MTIzfSwiY2VudHMiOjUwMH0="},
		{"GET", "/v1/outbox/deadLetters/13", "", 404, "reason", "NOT_FOUND"},
		{"GET", "/v1/outbox/deadLetters/x", "", 400, "reason", "INVALID_ARGUMENT"},
		{"GET", "/v1/whoami", "", 200, "roles", "ROLE_OPERATOR"},
		{"GET", "/v1/overview", "", 404, "reason", "NO_SUCH_PATH"},
		{"GET", "/v1/transactions", "", 404, "reason", "NO_SUCH_PATH"},
		{"GET", "/v1/outbox/messages?tpoic=x", "", 400, "message", "tpoic"},
		{"GET", "/v1/outbox/messages?filter=x", "", 400, "message", "filter"},
		{"GET", "/v1/outbox/deadLetters:replay", "", 405, "reason", "METHOD_NOT_ALLOWED"},
		{"POST", "/v1/outbox/messages/1-7:skip", `{"reason":"r","validateOnly":true}`, 200, "act", "OUTBOX_VERB_SKIP"},
		{"POST", "/v1/outbox/messages/1-7:skip", `{"reason":"r"}`, 200, "act", "OUTBOX_VERB_SKIP"},
		{"POST", "/v1/outbox/messages/1-7:skip", `{"reason":"r"}`, 404, "reason", "NOT_FOUND"},
		{"POST", "/v1/outbox:parkKey", `{"key":"k/1","reason":"r"}`, 200, "act", "OUTBOX_VERB_PARK"},
		{"POST", "/v1/outbox/deadLetters:replay", `{"numbers":["12"],"reason":"broker is back","requestId":"q"}`, 200, "act", "OUTBOX_VERB_REPLAY"},
		{"POST", "/v1/outbox/deadLetters:discard", `{"topic":"bills","reason":"r"}`, 200, "act", "OUTBOX_VERB_DISCARD"},
		{"POST", "/v1/outbox/deadLetters:discard", `{"topic":"bills"}`, 404, "reason", "NOT_FOUND"},
	} {
		resp, got := ask(t, c.method, at+c.path, c.body)
		if said := jsonOf(t, got[c.field]); resp.status != c.status || !strings.Contains(said, c.want) {
			t.Errorf("%s %s: %d, %s is %s; want %d and %s", c.method, c.path, resp.status, c.field, said, c.status, c.want)
		}
	}
	acts := fake.Acts()
	if len(acts) != 4 || acts[2].GetReason() != "broker is back" || acts[2].GetRequestId() != "q" || acts[2].GetMessageIds()[0] != "c" {
		t.Errorf("acts: %v", acts)
	}
}

// TestOutboxRedaction: bodies by field, headers by name.
func TestOutboxRedaction(t *testing.T) {
	_, at := serveOutbox(t, &gateway.Config{Redact: []string{"CVC", "x-card"}})
	_, got := ask(t, "GET", at+"/v1/outbox/deadLetters/12", "")
	d, _ := got["deadLetter"].(map[string]any)
	if want := `{"card":{"cvc":"[redacted]"},"cents":500}`; decoded(t, d["body"]) != want {
		t.Errorf("body %s, want %s", decoded(t, d["body"]), want)
	}
	if h, _ := d["headers"].(map[string]any); h["X-Card"] != "[redacted]" || h["source"] != "shop" {
		t.Errorf("headers %v", h)
	}
}

// TestOutboxCallers: a caller's own credentials reach the relay, which decides.
func TestOutboxCallers(t *testing.T) {
	fake, at := serveOutbox(t, nil)
	fake.Grant("v", gatewaytest.Caller{Subject: "vera", Roles: []amendsv1.Role{amendsv1.Role_ROLE_VIEWER}})
	for _, c := range []struct {
		path, body, token string
		status            int
	}{
		{"/v1/outbox", "", "", http.StatusUnauthorized},
		{"/v1/outbox", "", "v", http.StatusOK},
		{"/v1/whoami", "", "", http.StatusUnauthorized},
		{"/v1/outbox/deadLetters:discard", `{"numbers":["12"],"reason":"r"}`, "v", http.StatusForbidden},
	} {
		method := map[bool]string{true: "POST", false: "GET"}[c.body != ""]
		var headers []string
		if c.token != "" {
			headers = []string{"Authorization", "Bearer " + c.token, "Amends-Namespace", "shop"}
		}
		if resp, got := ask(t, method, at+c.path, c.body, headers...); resp.status != c.status {
			t.Errorf("%s as %q: %d %v, want %d", c.path, c.token, resp.status, got, c.status)
		}
	}
	if md := fake.Metadata(); len(fake.Acts()) != 0 || md.Get("amends-namespace")[0] != "shop" {
		t.Errorf("acts %v, metadata %v", fake.Acts(), md)
	}
	resp, _ := ask(t, "POST", at+"/v1/outbox:parkKey", `{}`, "Authorization", "Bearer v", "Origin", "https://evil.example")
	if resp.status != http.StatusForbidden {
		t.Errorf("another site's request: %d", resp.status)
	}
}
