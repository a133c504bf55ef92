package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// provider is an OpenID provider without a network: pages by URL.
type provider struct {
	mu    sync.Mutex
	away  bool
	pages map[string]string
	gets  map[string]int
}

func (p *provider) RoundTrip(req *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gets[req.URL.String()]++
	page, ok := p.pages[req.URL.String()]
	switch {
	case p.away:
		return nil, errors.New("connection refused")
	case !ok:
		return &http.Response{StatusCode: http.StatusNotFound, Status: "404 Not Found", Body: http.NoBody, Request: req}, nil
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(page)), Request: req}, nil
}

func (p *provider) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *provider) fetches(url string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gets[url]
}

const (
	config  = iss + wellKnown
	keysURI = "https://cdn.example.net/keys"
)

func newProvider(keys string) *provider {
	return &provider{gets: map[string]int{}, pages: map[string]string{
		config:  fmt.Sprintf(`{"issuer": %q, "jwks_uri": %q, "id_token_signing_alg_values_supported": ["HS256", "none"]}`, iss, keysURI),
		keysURI: keys,
	}}
}

// discovering opens a file with one issuer whose keys are to be discovered at p.
func discovering(t *testing.T, p *provider, l *logged) *File {
	t.Helper()
	text := fmt.Sprintf(`{"issuers": [{"issuer": %q, "audiences": ["amends"]}]}`, iss)
	f, err := OpenFile(write(t, t.TempDir(), "auth.json", text), l.logger())
	if err != nil {
		t.Fatal(err)
	}
	keys := f.content.get().issuers[iss].keys.(*urlKeys)
	keys.client.Transport = p
	return f
}

// TestDiscovery: found by the issuer's name alone, rotated, away and back.
func TestDiscovery(t *testing.T) {
	k, next := newKeyring(t), newKeyring(t)
	set := func(k *keyring, id string) string { return jwks(t, jose.JSONWebKey{Key: k.ec.Public(), KeyID: id}) }
	synctest.Test(t, func(t *testing.T) {
		p, l := newProvider(set(k, "1")), &logged{}
		f := discovering(t, p, l)
		ask := func(when string, k *keyring, id string, want error) {
			t.Helper()
			token := sign(t, jose.ES256, k.ec, id, claims(map[string]any{"jti": when}))
			_, err := f.Authenticate(t.Context(), Credentials{Token: token})
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s: %v, want %v", when, err, want)
			}
		}
		for n := range 20 {
			ask(fmt.Sprint("found ", n), k, "1", nil)
		}
		if c, u := p.fetches(config), p.fetches(keysURI); c != 1 || u != 1 {
			t.Errorf("20 tokens: configuration fetched %d times, keys %d times", c, u)
		}

		time.Sleep(keysRetry)
		p.set(func() { p.pages[keysURI] = set(next, "2") })
		ask("rotated", next, "2", nil) // an unknown key id looks for new keys
		ask("the old key", k, "1", amendsv1.ErrUnauthenticated)

		p.set(func() { p.away = true })
		time.Sleep(keysUsable - time.Minute)
		ask("away", next, "2", nil) // what was fetched before counts
		if !strings.Contains(l.String(), "those fetched before count for") || !strings.Contains(l.String(), config) {
			t.Errorf("the log does not say what is away and what counts:\n%s", l)
		}
		time.Sleep(time.Minute)
		ask("away for a day", next, "2", amendsv1.ErrUnavailable)
		if !strings.Contains(l.String(), "refused until they can be") {
			t.Errorf("the log does not say that tokens are refused:\n%s", l)
		}

		// At another place now: it is looked for anew, and found there.
		p.set(func() {
			p.away = false
			p.pages[config] = fmt.Sprintf(`{"issuer": %q, "jwks_uri": "https://new.example.net/k"}`, iss)
			p.pages["https://new.example.net/k"] = set(k, "3")
		})
		time.Sleep(keysRetry)
		ask("moved", k, "3", nil)
	})
}

// TestDiscoveryPrefetch: what does not answer is in the log at the start, and
// no error; the keys come when it does.
func TestDiscoveryPrefetch(t *testing.T) {
	k := newKeyring(t)
	synctest.Test(t, func(t *testing.T) {
		p, l := newProvider(k.set(t)), &logged{}
		f := discovering(t, p, l)
		p.set(func() { p.away = true })
		f.Prefetch(t.Context())
		if !strings.Contains(l.String(), "connection refused") || !strings.Contains(l.String(), "refused until") {
			t.Errorf("log:\n%s", l)
		}
		p.set(func() { p.away = false })
		time.Sleep(keysRetry)
		f.Prefetch(t.Context())
		if n := p.fetches(keysURI); n != 1 {
			t.Errorf("fetched %d times", n)
		}
		if _, err := f.Authenticate(t.Context(), Credentials{Token: sign(t, jose.ES256, k.ec, "ec", claims(nil))}); err != nil || p.fetches(keysURI) != 1 {
			t.Errorf("%v, %d fetches", err, p.fetches(keysURI))
		}
	})
}

// TestReloadKeepsKeys: the auth file changes while the issuer is away, and its
// tokens are good all the same.
func TestReloadKeepsKeys(t *testing.T) {
	k := newKeyring(t)
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(k.set(t))
		text := `{"issuers": [{"issuer": %q, "audiences": ["amends"]}], "quotas": {"shop": {"live": %d}}}`
		dir := t.TempDir()
		f, err := OpenFile(write(t, dir, "auth.json", fmt.Sprintf(text, iss, 1)), quiet)
		if err != nil {
			t.Fatal(err)
		}
		f.content.get().issuers[iss].keys.(*urlKeys).client.Transport = p
		f.Prefetch(t.Context())
		p.set(func() { p.away = true })
		write(t, dir, "auth.json", fmt.Sprintf(text, iss, 20))
		time.Sleep(reloadEvery)
		if _, err := f.Authenticate(t.Context(), Credentials{Token: sign(t, jose.ES256, k.ec, "ec", claims(nil))}); err != nil {
			t.Errorf("after the reload: %v", err)
		}
		if q := f.Quota("shop"); q.Live != 20 {
			t.Errorf("not read again: %+v", q)
		}
	})
}

// TestDiscoveryRefused: what an issuer's answer must not be.
func TestDiscoveryRefused(t *testing.T) {
	k := newKeyring(t)
	for name, c := range map[string]struct {
		page string
		want string
	}{
		"another issuer":   {`{"issuer": "https://evil.example.com", "jwks_uri": "` + keysURI + `"}`, "describes the issuer"},
		"with a slash":     {`{"issuer": "` + iss + `/", "jwks_uri": "` + keysURI + `"}`, "to the letter"},
		"no issuer":        {`{"jwks_uri": "` + keysURI + `"}`, "describes the issuer"},
		"no keys":          {`{"issuer": "` + iss + `"}`, "jwks_uri in"},
		"plain HTTP":       {`{"issuer": "` + iss + `", "jwks_uri": "http://cdn.example.net/keys"}`, "want https"},
		"this machine":     {`{"issuer": "` + iss + `", "jwks_uri": "http://127.0.0.1:7460/keys"}`, "want https, as the issuer is"},
		"a file":           {`{"issuer": "` + iss + `", "jwks_uri": "file:///etc/passwd"}`, "want https"},
		"a user":           {`{"issuer": "` + iss + `", "jwks_uri": "https://u:p@cdn.example.net/keys"}`, "without a user"},
		"no JSON":          {`<html>`, "is no JSON object"},
		"huge":             {`{"issuer": "` + iss + `", "x": "` + strings.Repeat("a", maxDiscovery) + `"}`, "over 65536 bytes"},
		"keys are no keys": {`{"issuer": "` + iss + `", "jwks_uri": "` + config + `"}`, "no key in it"},
	} {
		p, l := newProvider(k.set(t)), &logged{}
		p.pages[config] = c.page
		f := discovering(t, p, l)
		_, err := f.Authenticate(t.Context(), Credentials{Token: sign(t, jose.ES256, k.ec, "ec", claims(nil))})
		if !errors.Is(err, amendsv1.ErrUnavailable) || !strings.Contains(l.String(), c.want) {
			t.Errorf("%s: %v, want unavailable, and in the log %q:\n%s", name, err, c.want, l)
		}
		if c.want != "no key in it" && p.fetches(keysURI) != 0 {
			t.Errorf("%s: its keys were fetched", name)
		}
	}
}

// TestDiscoveryOverHTTP: a real server, on this machine, that redirects, that
// never ends and that is slow.
func TestDiscoveryOverHTTP(t *testing.T) {
	k := newKeyring(t)
	var mu sync.Mutex
	mode, elsewhere := "", 0
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		elsewhere++
	}))
	defer evil.Close()
	var issuer string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now := mode
		mu.Unlock()
		switch {
		case now == "redirect":
			http.Redirect(w, r, evil.URL, http.StatusFound)
		case now == "slow":
			<-r.Context().Done() // until the client gives up
		case now == "endless" && r.URL.Path == "/keys":
			for line := []byte(strings.Repeat(" ", 1<<16)); r.Context().Err() == nil; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		case r.URL.Path == "/keys":
			fmt.Fprint(w, k.set(t))
		default:
			fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, issuer, issuer+"/keys")
		}
	}))
	defer srv.Close()
	issuer = srv.URL
	for _, c := range []struct{ mode, want string }{
		{"redirect", "redirect"}, {"endless", "over 1048576 bytes"}, {"slow", "context deadline exceeded"}, {"", ""},
	} {
		mu.Lock()
		mode = c.mode
		mu.Unlock()
		d := discovery{issuer: issuer, client: keysClient()}
		u := newURLKeys(issuer, d.locate, d.client, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		if c.mode == "slow" {
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
		}
		keys, err := u.fetch(ctx)
		cancel()
		if c.want == "" && (err != nil || len(keys) != 3) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d keys, %v", c.mode, len(keys), err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if elsewhere != 0 {
		t.Error("the redirect was followed")
	}
}
