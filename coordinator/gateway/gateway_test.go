package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/gateway"
	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var start = time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)

// serve starts a gateway before a fake coordinator.
func serve(t *testing.T, cfg *gateway.Config) (*gatewaytest.Coordinator, *httptest.Server) {
	t.Helper()
	fake := gatewaytest.New()
	h, err := gateway.New(fake.Serve(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return fake, server
}

func running(gid string) *amendsv1.Transaction {
	return &amendsv1.Transaction{
		Gid: gid, Kind: amendsv1.Kind_KIND_SAGA, Name: "transfer", State: amendsv1.State_STATE_RUNNING,
		CreateTime: timestamppb.New(start),
		Verbs:      []amendsv1.Verb{amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_ABORT},
		Branches: []*amendsv1.Branch{{
			Name: "debit/1", Action: "accounts.debit", Phase: "DOING",
			Request: []byte(`{"card":{"Number":4111111111111111,"cvc":"123"},"cents":90071992547409931}`), Reply: []byte("\x08\x01"),
			Verbs: []amendsv1.Verb{amendsv1.Verb_VERB_SKIP_STEP, amendsv1.Verb_VERB_COMPLETE_STEP},
		}},
	}
}

// answer is what a response says beside its body.
type answer struct {
	status int
	header http.Header
}

// ask sends a request and returns what the answer's JSON holds.
func ask(t *testing.T, method, target, body string, headers ...string) (answer, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%s %s: %d %q: %v", method, target, resp.StatusCode, raw, err)
	}
	return answer{resp.StatusCode, resp.Header}, got
}

func TestReadsAndActs(t *testing.T) {
	fake, server := serve(t, nil)
	fake.Put(running("order-1"))

	resp, got := ask(t, "GET", server.URL+`/v1/transactions?pageSize=10&filter=`+url.QueryEscape(`state = "RUNNING"`), "")
	list, _ := got["transactions"].([]any)
	if resp.status != http.StatusOK || len(list) != 1 || resp.header.Get("Content-Type") != "application/json" {
		t.Fatalf("list: %d %v", resp.status, got)
	}
	if _, got = ask(t, "GET", server.URL+`/v1/transactions:count`, ""); got["total"] != "1" {
		t.Errorf("count: %v", got)
	}
	_, got = ask(t, "POST", server.URL+"/v1/transactions/order-1:retryNow", `{"reason":"bank is back","requestId":"r1"}`)
	if tx, _ := got["transaction"].(map[string]any); tx["gid"] != "order-1" {
		t.Errorf("retry: %v", got)
	}
	_, got = ask(t, "POST", server.URL+"/v1/transactions/order-1/branches/debit%2F1:complete", `{"reason":"by hand","reply":"e30="}`)
	if tx, _ := got["transaction"].(map[string]any); tx["gid"] != "order-1" {
		t.Errorf("complete: %v", got)
	}
	acts := fake.Acts()
	if len(acts) != 2 || acts[0].Reason != "bank is back" || acts[0].Request != "r1" || acts[1].Branch != "debit/1" || string(acts[1].Reply) != "{}" {
		t.Errorf("acts: %+v", acts)
	}
}

func TestOpenAPI(t *testing.T) {
	_, server := serve(t, nil)
	_, got := ask(t, "GET", server.URL+"/v1/openapi.json", "")
	paths, _ := got["paths"].(map[string]any)
	for _, path := range []string{"/v1/transactions/{gid}:retryNow", "/v1/outbox/deadLetters/{number}"} {
		if paths[path] == nil {
			t.Errorf("the description lacks %s: %d paths", path, len(paths))
		}
	}
}

// TestNamesInPaths: whatever a gid may hold, it comes through.
func TestNamesInPaths(t *testing.T) {
	fake, server := serve(t, nil)
	for _, gid := range []string{
		"order-1", "order/17", "a/b/c", "order:17", "order:watch", "x:retryNow", "100%", "100%25", "a%2Fb", "ä/ö", "日本:語", "a+b", "a?b#c",
		"//", "a;b", "&=", `"q"`, "events", "a/events", "..a", "a\\b", "😀",
	} {
		fake.Put(running(gid))
		path := server.URL + "/v1/transactions/" + encodeURIComponent(gid)
		if _, got := ask(t, "GET", path, ""); gidOf(got) != gid {
			t.Errorf("get %q: %v", gid, got)
		}
		if _, got := ask(t, "POST", path+":abort", `{"reason":"x"}`); gidOf(got) != gid {
			t.Errorf("abort %q: %v", gid, got)
		}
		if resp, got := ask(t, "GET", path+"/events", ""); resp.status != http.StatusOK {
			t.Errorf("events of %q: %v", gid, got)
		}
	}
	// What may stand in a path unescaped may be left so.
	if _, got := ask(t, "GET", server.URL+"/v1/transactions/order:17", ""); gidOf(got) != "order:17" {
		t.Errorf("a bare colon: %v", got)
	}
}

// encodeURIComponent is the browsers' function of that name.
func encodeURIComponent(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func gidOf(got map[string]any) any {
	tx, _ := got["transaction"].(map[string]any)
	return tx["gid"]
}

func TestMetadata(t *testing.T) {
	fake, server := serve(t, nil)
	fake.Put(running("a"))
	ask(t, "GET", server.URL+"/v1/whoami", "", "Authorization", "Bearer t0k", "Amends-Namespace", "shop",
		"Grpc-Metadata-Amends-Namespace", "other", "Cookie", "c=1", "Traceparent", "00-1-2-01")
	md := fake.Metadata()
	for key, want := range map[string]string{"authorization": "Bearer t0k", "amends-namespace": "shop", "traceparent": "00-1-2-01", "cookie": "", "grpcgateway-cookie": ""} {
		if got := strings.Join(md.Get(key), "|"); got != want {
			t.Errorf("metadata %s = %q, want %q", key, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	fake, server := serve(t, &gateway.Config{MaxBody: 200, Hosts: []string{"amends.example"}})
	fake.Put(running("a"))
	fake.OnAct(func(a gatewaytest.Act) error {
		switch a.Reason {
		case "full":
			return amendsv1.ErrOverloaded.With("full").WithRetryAfter(1500 * time.Millisecond)
		case "bare":
			return errors.New("bare")
		}
		return nil
	})
	const retry = "/v1/transactions/a:retryNow"
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		reason, message          string
	}{
		{name: "no such transaction", method: "GET", path: "/v1/transactions/b", status: 404, reason: "NOT_FOUND", message: `"b"`},
		{name: "no such path", method: "GET", path: "/v1/nothing", status: 404, reason: "NO_SUCH_PATH"},
		{name: "method", method: "POST", path: "/v1/overview", status: 405, reason: "METHOD_NOT_ALLOWED", message: "POST"},
		{name: "filter", method: "GET", path: "/v1/transactions?filter=bogus%3D1", status: 400, reason: "INVALID_FILTER", message: "bogus"},
		{name: "mistyped query", method: "GET", path: "/v1/transactions?filtre=x", status: 400, reason: "INVALID_ARGUMENT", message: `"filtre"`},
		{name: "type of a query", method: "GET", path: "/v1/transactions?pageSize=x", status: 400, reason: "INVALID_ARGUMENT", message: "x"},
		{name: "illegal verb", method: "POST", path: "/v1/transactions/a:resume", body: `{"reason":"x"}`, status: 400, reason: "ILLEGAL_VERB", message: "legal are"},
		{name: "etag", method: "POST", path: retry, body: `{"reason":"x","etag":"77"}`, status: 409, reason: "ETAG_MISMATCH"},
		{name: "unknown field", method: "POST", path: retry, body: `{"reson":"x"}`, status: 400, reason: "INVALID_ARGUMENT", message: `unknown field "reson"`},
		{name: "no JSON", method: "POST", path: retry, body: `{"reason":`, status: 400, reason: "INVALID_ARGUMENT", message: "request body"},
		{name: "two values", method: "POST", path: retry, body: `{"reason":"x"}{}`, status: 400, reason: "INVALID_ARGUMENT", message: "one JSON value"},
		{name: "empty body", method: "POST", path: retry, status: 400, reason: "INVALID_ARGUMENT", message: "reason is empty"},
		{name: "long body", method: "POST", path: retry, body: `{"reason":"` + strings.Repeat("x", 200) + `"}`, status: 413, reason: "PAYLOAD_TOO_LARGE", message: "200 bytes"},
		{name: "a form", method: "POST", path: retry, body: `reason=x`, headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "a plain text", method: "POST", path: retry, body: `{"reason":"x"}`, headers: []string{"Content-Type", "text/plain"}, status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "another site", method: "POST", path: retry, body: `{"reason":"x"}`, headers: []string{"Origin", "https://evil.example"}, status: 403, reason: "CROSS_ORIGIN"},
		{name: "another site, by fetch metadata", method: "POST", path: retry, body: `{"reason":"x"}`, headers: []string{"Sec-Fetch-Site", "cross-site"}, status: 403, reason: "CROSS_ORIGIN"},
		{name: "another method", method: "POST", path: "/v1/transactions", headers: []string{"X-HTTP-Method-Override", "GET"}, status: 405, reason: "METHOD_NOT_ALLOWED"},
		{name: "another name", method: "GET", path: "/v1/overview", headers: []string{"Host", "rebound.example:80"}, status: 421, reason: "UNKNOWN_HOST", message: "rebound.example"},
		{name: "namespace", method: "GET", path: "/v1/overview", headers: []string{"Amends-Namespace", "sh\u00f6p"}, status: 400, reason: "INVALID_ARGUMENT", message: "Amends-Namespace"},
		{name: "overload", method: "POST", path: retry, body: `{"reason":"full"}`, status: 429, reason: "OVERLOADED"},
		{name: "an error without a reason", method: "POST", path: retry, body: `{"reason":"bare"}`, status: 500, reason: "UNKNOWN", message: "bare"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, got := ask(t, c.method, server.URL+c.path, c.body, c.headers...)
			message, _ := got["message"].(string)
			if resp.status != c.status || got["reason"] != c.reason || !strings.Contains(message, c.message) {
				t.Errorf("%d %v, want %d %s %q", resp.status, got, c.status, c.reason, c.message)
			}
			if c.reason == "OVERLOADED" && resp.header.Get("Retry-After") != "2" {
				t.Errorf("Retry-After %q", resp.header.Get("Retry-After"))
			}
			if resp.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("no nosniff")
			}
		})
	}
	for _, host := range []string{"amends.example:7600", "AMENDS.example", "localhost:1", "127.0.0.1", "[::1]:80", "[::1]"} {
		if resp, got := ask(t, "GET", server.URL+"/v1/overview", "", "Host", host); resp.status != http.StatusOK {
			t.Errorf("host %s: %v", host, got)
		}
	}
	if resp, got := ask(t, "POST", server.URL+retry, `{"reason":"x"}`, "Origin", server.URL); resp.status != http.StatusOK {
		t.Errorf("the same site: %v", got)
	}
}

func TestUnauthenticated(t *testing.T) {
	fake, server := serve(t, nil)
	fake.Grant("v", gatewaytest.Caller{Subject: "vera", Roles: []amendsv1.Role{amendsv1.Role_ROLE_VIEWER}})
	fake.Put(running("a"))
	resp, got := ask(t, "GET", server.URL+"/v1/whoami", "")
	if resp.status != http.StatusUnauthorized || got["reason"] != "UNAUTHENTICATED" || resp.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("%d %v", resp.status, got)
	}
	resp, got = ask(t, "POST", server.URL+"/v1/transactions/a:abort", `{"reason":"x"}`, "Authorization", "Bearer v")
	if resp.status != http.StatusForbidden || got["reason"] != "PERMISSION_DENIED" || len(fake.Acts()) != 0 {
		t.Errorf("%d %v", resp.status, got)
	}
}

func TestRedaction(t *testing.T) {
	fake, server := serve(t, &gateway.Config{Redact: []string{"number", "CVC"}})
	fake.Put(running("a"))
	_, got := ask(t, "GET", server.URL+"/v1/transactions/a?view=TRANSACTION_VIEW_FULL", "")
	branch := branchOf(got)
	if want := `{"card":{"Number":"[redacted]","cvc":"[redacted]"},"cents":90071992547409931}`; decoded(t, branch["request"]) != want {
		t.Errorf("request %s, want %s", decoded(t, branch["request"]), want)
	}
	if reply := decoded(t, branch["reply"]); !strings.HasPrefix(reply, "[redacted]") || strings.ContainsRune(reply, 8) {
		t.Errorf("reply %q: what is not JSON must be hidden whole", reply)
	}
}

func branchOf(got map[string]any) map[string]any {
	tx, _ := got["transaction"].(map[string]any)
	branch, _ := tx["branches"].([]any)[0].(map[string]any)
	return branch
}

func decoded(t *testing.T, field any) string {
	t.Helper()
	s, _ := field.(string)
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// requestOf is the first branch's request in the JSON of an answer.
func requestOf(t *testing.T, body []byte) string {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	return decoded(t, branchOf(got)["request"])
}

func TestConfig(t *testing.T) {
	_, err := gateway.New(gatewaytest.New().Serve(t), &gateway.Config{MaxBody: -1, KeepAlive: -1})
	if err == nil || !strings.Contains(err.Error(), "MaxBody") || !strings.Contains(err.Error(), "KeepAlive") {
		t.Errorf("err = %v, want both mistakes", err)
	}
}
