package notify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/notify"
)

var example = notify.Event{
	ID: "order-17/3/stalled", Source: "amends/acme", Type: notify.Stalled, Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
	Namespace: "acme", GID: "order-17", Seq: 3, Kind: "saga", Name: "checkout", Labels: map[string]string{"order_id": "A-17"},
	State: "RUNNING", WaitsFor: "payments", Branch: "charge", Reason: `waits for service "payments" since 2026-01-02T03:03:05Z`,
	LastError: "connection refused",
}

const exampleJSON = `[{"specversion":"1.0","id":"order-17/3/stalled","source":"amends/acme",` +
	`"type":"dev.amends.transaction.stalled","subject":"order-17","time":"2026-01-02T03:04:05.000006Z",` +
	`"datacontenttype":"application/json","data":{"namespace":"acme","gid":"order-17","seq":3,"kind":"saga",` +
	`"name":"checkout","labels":{"order_id":"A-17"},"state":"RUNNING","waits_for":"payments","branch":"charge",` +
	`"reason":"waits for service \"payments\" since 2026-01-02T03:03:05Z","last_error":"connection refused"}}]`

func hook(t *testing.T, url string, cfg *notify.WebhookConfig) *notify.Webhook {
	t.Helper()
	w, err := notify.NewWebhook(url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWebhook: what goes over the wire, signed with each secret.
func TestWebhook(t *testing.T) {
	type request struct {
		*http.Request
		body string
	}
	got := make(chan request, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- request{r, string(body)}
	}))
	defer srv.Close()
	w := hook(t, srv.URL+"/in?room=1", &notify.WebhookConfig{
		Secrets: []string{"new", "old"}, Header: http.Header{"authorization": {"Bearer x"}},
	})
	if err := w.Send(t.Context(), []notify.Event{example}); err != nil {
		t.Fatal(err)
	}
	r := <-got
	if r.Method != http.MethodPost || r.URL.String() != "/in?room=1" || r.Header.Get("Authorization") != "Bearer x" ||
		r.Header.Get("Content-Type") != "application/cloudevents-batch+json" {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	if r.body != exampleJSON {
		t.Errorf("body\n%s\nwant\n%s", r.body, exampleJSON)
	}
	sig := r.Header.Get(notify.SignatureHeader)
	for _, secret := range []string{"new", "old"} {
		if err := notify.Verify(sig, []byte(r.body), secret, time.Now(), time.Minute); err != nil {
			t.Errorf("secret %q: %v", secret, err)
		}
	}
	if err := notify.Verify(sig, []byte(r.body), "other", time.Now(), time.Minute); !errors.Is(err, notify.ErrSignature) {
		t.Errorf("another secret: %v", err)
	}
}

// TestSignature: the format is fixed, and nothing else is taken for one.
func TestSignature(t *testing.T) {
	at, body := time.Unix(1767323045, 0), []byte(`[]`)
	sig := notify.Sign(at, body, "s3cret")
	const want = "t=1767323045,v1=" + // printf '1767323045.[]' | openssl dgst -sha256 -hmac s3cret
		"de01887c3e950d5c496b74d3eac8c2b0a8aaf65d36a4998e628844ae3070c961"
	if sig != want {
		t.Errorf("signature %s, want %s", sig, want)
	}
	for name, c := range map[string]struct {
		sig, body, secret string
		now               time.Time
		ok                bool
	}{
		"right":        {sig, "[]", "s3cret", at.Add(time.Minute), true},
		"clock behind": {sig, "[]", "s3cret", at.Add(-time.Minute), true},
		"body":         {sig, "[ ]", "s3cret", at, false},
		"secret":       {sig, "[]", "s3cre", at, false},
		"late":         {sig, "[]", "s3cret", at.Add(time.Minute + time.Second), false},
		"early":        {sig, "[]", "s3cret", at.Add(-time.Minute - time.Second), false},
		"moved":        {strings.Replace(sig, "t=1767323045", "t=1767323046", 1), "[]", "s3cret", at, false},
		"no time":      {sig[strings.Index(sig, "v1="):], "[]", "s3cret", at, false},
		"no mac":       {"t=1767323045", "[]", "s3cret", at, false},
		"no hex":       {"t=1767323045,v1=zz", "[]", "s3cret", at, false},
		"none":         {"", "[]", "s3cret", at, false},
		"empty secret": {notify.Sign(at, body, ""), "[]", "", at, false},
		"second":       {"v0=1,v1=00," + sig, "[]", "s3cret", at, true},
	} {
		err := notify.Verify(c.sig, []byte(c.body), c.secret, c.now, time.Minute)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, notify.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWebhookAnswers: what is taken for an acknowledgement, a rejection, and a
// wish to be left alone.
func TestWebhookAnswers(t *testing.T) {
	date := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		code       int
		retryAfter string
		ok         bool
		rejected   bool
		after      time.Duration
	}{
		{200, "", true, false, 0}, {202, "", true, false, 0}, {204, "7", true, false, 0},
		{302, "", false, false, 0}, {400, "", false, true, 0}, {413, "", false, true, 0}, {422, "9", false, true, 0},
		{401, "", false, false, 0}, {404, "", false, false, 0}, {410, "", false, false, 0},
		{429, "17", false, false, 17 * time.Second}, {503, "99999999999", false, false, 5 * time.Minute},
		{503, date, false, false, time.Hour}, {500, "-1", false, false, 0}, {500, "soon", false, false, 0},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.retryAfter)
			w.WriteHeader(c.code)
		}))
		err := hook(t, srv.URL+"/very-secret", nil).Send(t.Context(), []notify.Event{example})
		srv.Close()
		var later *notify.RetryAfterError
		if errors.As(err, &later); later == nil {
			later = &notify.RetryAfterError{}
		}
		if (err == nil) != c.ok || errors.Is(err, notify.ErrRejected) != c.rejected ||
			(later.After-c.after).Abs() > 2*time.Second {
			t.Errorf("%d %q: %v, retry after %v", c.code, c.retryAfter, err, later.After)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the path: %v", err)
		}
	}
}

// TestWebhookRedirects: to the same host with the method kept, and nowhere else.
func TestWebhookRedirects(t *testing.T) {
	var elsewhere int
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	var body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/here", http.StatusPermanentRedirect)
		case "/here":
			text, _ := io.ReadAll(r.Body)
			body = r.Method + " " + string(text)
		case "/away":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case "/get":
			http.Redirect(w, r, "/here", http.StatusFound)
		default:
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	for path, ok := range map[string]bool{"/moved": true, "/away": false, "/get": false, "/round": false} {
		body = ""
		err := hook(t, srv.URL+path, nil).Send(t.Context(), []notify.Event{example})
		if (err == nil) != ok || ok != (body == "POST "+exampleJSON) {
			t.Errorf("%s: %v, body %q", path, err, body)
		}
	}
	if elsewhere != 0 {
		t.Errorf("another host was told %d times", elsewhere)
	}
}

// TestWebhookUnreachable: an error that tells the host and no more, in time.
func TestWebhookUnreachable(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	hang := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer slow.Close()
	defer close(hang)
	for _, url := range []string{srv.URL, slow.URL} {
		full := strings.Replace(url, "http://", "http://me:password@", 1) + "/path-secret?token=secret"
		err := hook(t, full, &notify.WebhookConfig{Timeout: 50 * time.Millisecond}).Send(t.Context(), []notify.Event{example})
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1:") {
			t.Fatalf("%s: %v", url, err)
		}
		for _, bad := range []string{"password", "secret"} {
			if strings.Contains(err.Error(), bad) {
				t.Errorf("the error tells %s: %v", bad, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hook(t, srv.URL, nil).Send(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestWebhookConfig: what cannot be meant is refused, without telling secrets.
func TestWebhookConfig(t *testing.T) {
	for url, want := range map[string]string{
		"": "https://host/path", "hooks.example/x": "https://host/path", "ftp://h/x": "https://host/path",
		"https:///x":        "https://host/path",
		"http://a b/secret": "https://host/path", "http://hooks.example/secret": "not encrypted",
		"https://hooks.example/x": "", "http://localhost:1/x": "", "http://[::1]:1/x": "",
	} {
		_, err := notify.NewWebhook(url, nil)
		text := fmt.Sprint(err)
		if (err == nil) != (want == "") || !strings.Contains(text, want) || strings.Contains(text, "secret") {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
	_, err := notify.NewWebhook("http://hooks.example", &notify.WebhookConfig{Insecure: true, Secrets: []string{""}, Timeout: -1})
	if err == nil || !strings.Contains(err.Error(), "Secrets") || !strings.Contains(err.Error(), "Timeout") {
		t.Errorf("config: %v", err)
	}
}

// FuzzVerify: whatever a header holds, it is a signature only if Sign could have
// made it.
func FuzzVerify(f *testing.F) {
	at := time.Unix(1767323045, 0)
	f.Add(notify.Sign(at, []byte("[]"), "s3cret"), []byte("[]"))
	f.Add("t=1767323045,v1=", []byte(nil))
	f.Add("t=,v1=00,,=", []byte("{"))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		if notify.Verify(header, body, "s3cret", at, 0) != nil {
			return
		}
		_, want, _ := strings.Cut(notify.Sign(at, body, "s3cret"), ",v1=")
		if !strings.Contains(strings.ToLower(header), want) {
			t.Errorf("%q holds for %q", header, body)
		}
	})
}
