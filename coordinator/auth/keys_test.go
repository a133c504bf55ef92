package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// site is a web server without a network.
type site struct {
	mu   sync.Mutex
	body string
	code int // 0: no answer
	gets int
	slow time.Duration
}

func (s *site) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.gets++
	slow := s.slow
	s.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.code == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{
		StatusCode: s.code, Status: http.StatusText(s.code), Header: http.Header{"Location": {"http://evil.example.com/"}},
		Body: io.NopCloser(strings.NewReader(s.body)), Request: req,
	}, nil
}

func (s *site) answer(code int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.code, s.body = code, body
}

func (s *site) fetched(t *testing.T, want int, when string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gets != want {
		t.Errorf("%s: fetched %d times, want %d", when, s.gets, want)
	}
	s.gets = 0
}

func keysFrom(s *site) *urlKeys {
	client := keysClient()
	client.Transport = s
	const at = "https://login.example.com/keys"
	return newURLKeys(at, fixed(at), client, quiet)
}

func count(t *testing.T, u *urlKeys, id string, want int, wantErr error) {
	t.Helper()
	keys, err := u.find(t.Context(), id)
	if len(keys) != want || !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
		t.Errorf("key %q: %d keys, %v, want %d, %v", id, len(keys), err, want, wantErr)
	}
}

// TestKeysOfURL: fetched when needed, kept, and fetched again when old.
func TestKeysOfURL(t *testing.T) {
	k := newKeyring(t)
	one, two := jwks(t, jose.JSONWebKey{Key: k.ec.Public(), KeyID: "1"}), jwks(t, jose.JSONWebKey{Key: k.ec.Public(), KeyID: "2"})
	synctest.Test(t, func(t *testing.T) {
		s := &site{code: 200, body: one}
		u := keysFrom(s)
		s.fetched(t, 0, "before")
		for range 100 {
			count(t, u, "1", 1, nil)
			count(t, u, "", 1, nil)
		}
		s.fetched(t, 1, "kept")

		for range 100 { // whoever invents key ids makes nobody fetch
			count(t, u, "invented", 0, nil)
		}
		s.fetched(t, 0, "invented, at once")
		time.Sleep(keysRetry)
		for range 100 {
			count(t, u, "invented", 0, nil)
		}
		s.fetched(t, 1, "invented, later")

		time.Sleep(keysRetry)
		s.answer(200, two)
		count(t, u, "2", 1, nil) // rotated: a new key is found at once
		count(t, u, "1", 0, nil) // and the old one is gone
		s.fetched(t, 1, "rotated")

		time.Sleep(keysFresh)
		count(t, u, "2", 1, nil)
		s.fetched(t, 1, "old")
	})
}

// TestKeysOutage: keys that cannot be fetched count for a day.
func TestKeysOutage(t *testing.T) {
	k := newKeyring(t)
	one := jwks(t, jose.JSONWebKey{Key: k.ec.Public(), KeyID: "1"})
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		u := keysFrom(s)
		count(t, u, "1", 0, amendsv1.ErrUnavailable)
		s.answer(200, one)
		count(t, u, "1", 0, amendsv1.ErrUnavailable) // not asked again so soon
		s.fetched(t, 1, "no answer")
		time.Sleep(keysRetry)
		count(t, u, "1", 1, nil)
		for name, answer := range map[string]func(){
			"no answer": func() { s.answer(0, "") }, "error": func() { s.answer(500, one) }, "nonsense": func() { s.answer(200, "<html>") },
			"no keys": func() { s.answer(200, `{"keys":[]}`) }, "redirect": func() { s.answer(302, one) },
			"endless": func() { s.answer(200, one+strings.Repeat(" ", maxKeysBytes)) },
		} {
			answer()
			time.Sleep(keysFresh)
			if keys, err := u.find(t.Context(), "1"); len(keys) != 1 || err != nil {
				t.Errorf("%s: %d keys, %v", name, len(keys), err)
			}
		}
		s.answer(0, "")
		time.Sleep(keysUsable)
		count(t, u, "1", 0, amendsv1.ErrUnavailable)
		s.answer(200, one)
		time.Sleep(keysRetry)
		count(t, u, "1", 1, nil)
	})
}

// TestKeysSlow: while one fetches for long, those who know their key go on, and
// the others wait for the same answer.
func TestKeysSlow(t *testing.T) {
	k := newKeyring(t)
	one := jwks(t, jose.JSONWebKey{Key: k.ec.Public(), KeyID: "1"})
	synctest.Test(t, func(t *testing.T) {
		s := &site{code: 200, body: one, slow: 4 * time.Second}
		u := keysFrom(s)
		var g sync.WaitGroup
		for range 50 {
			g.Go(func() { count(t, u, "1", 1, nil) })
		}
		g.Wait()
		s.fetched(t, 1, "together")

		time.Sleep(keysFresh)
		g.Go(func() { count(t, u, "1", 1, nil) })
		synctest.Wait()
		began := time.Now()
		count(t, u, "1", 1, nil)
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v with a key at hand", waited)
		}
		g.Wait()
		s.fetched(t, 1, "fresher")
	})
}

func TestParseKeys(t *testing.T) {
	k := newKeyring(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	bad := jwks(t,
		jose.JSONWebKey{Key: weak.Public(), KeyID: "weak"},
		jose.JSONWebKey{Key: []byte("a shared secret of some length"), KeyID: "symmetric"},
		jose.JSONWebKey{Key: k.ec, KeyID: "private"},
		jose.JSONWebKey{Key: k.ec.Public(), KeyID: "encrypts", Use: "enc"})
	if keys, err := parseKeys([]byte(bad)); err == nil {
		t.Errorf("%d of the unusable keys are used", len(keys))
	}
	with := strings.Replace(bad, `{"keys":[`, `{"keys":[{"kty":"new"},7,`+strings.TrimSuffix(strings.TrimPrefix(
		jwks(t, jose.JSONWebKey{Key: k.ec.Public(), KeyID: "good"}), `{"keys":[`), `]}`)+`,`, 1)
	if keys, err := parseKeys([]byte(with)); err != nil || len(keys) != 1 || keys[0].KeyID != "good" {
		t.Errorf("%v, %v, want the good one", keys, err)
	}
	many := `{"keys":[` + strings.Repeat(`{},`, maxKeys) + `{}]}`
	for _, text := range []string{"", "7", "null", `{"keys":7}`, many} {
		if keys, err := parseKeys([]byte(text)); err == nil {
			t.Errorf("%.20q: %d keys", text, len(keys))
		}
	}
}
