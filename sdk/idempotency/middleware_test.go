package idempotency

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

func TestRepeatedRequestGetsTheRecordedAnswer(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		h := w.middleware(cfg).Wrap(http.HandlerFunc(w.effect))
		first := post(h, "k", "x")
		wantStatus(t, "first", first, http.StatusCreated)
		second := post(h, "k", "x", "Accept", "anything", "X-Forwarded-For", "elsewhere")
		if second.Code != first.Code || second.Body.String() != "did x" {
			t.Errorf("the repeated request got %d %q", second.Code, second.Body)
		}
		if second.Header().Get(HeaderReplayed) != "true" || first.Header().Get(HeaderReplayed) != "" {
			t.Errorf("replayed is marked %q, then %q", first.Header().Get(HeaderReplayed), second.Header().Get(HeaderReplayed))
		}
		second.Header().Del(HeaderReplayed)
		if !reflect.DeepEqual(first.Header(), second.Header()) {
			t.Errorf("headers %v, then %v", first.Header(), second.Header())
		}
		w.wantEffects(1)
		wantStatus(t, "another key", post(h, "k2", "x"), http.StatusCreated)
		w.wantEffects(2)
	})
}

func TestEmptyAnswers(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		h := w.middleware(cfg).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.effect(httptest.NewRecorder(), r)
			rw.WriteHeader(http.StatusNoContent)
		}))
		for _, what := range []string{"first", "again"} {
			got := post(h, "k", "")
			wantStatus(t, what, got, http.StatusNoContent)
			if got.Body.Len() > 0 {
				t.Errorf("%s: body %q", what, got.Body)
			}
		}
		w.wantEffects(1)
	})
}

func TestKeysBelongToTheirCallerAndRoute(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		m := w.middleware(cfg)
		mux := http.NewServeMux()
		mux.Handle("POST /effects", m.Wrap(http.HandlerFunc(w.effect)))
		mux.Handle("POST /effects/{id}", m.Wrap(http.HandlerFunc(w.effect)))
		send := func(path, tenant, key string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("x"))
			r.Header.Set("Tenant", tenant)
			r.Header.Set(Header, `"`+key+`"`)
			out := httptest.NewRecorder()
			mux.ServeHTTP(out, r)
			return out
		}
		// Were the parts only put together, the first two would be one key.
		const route = "POST /effects"
		for i, r := range [][3]string{{"/effects", "a" + route, "c"}, {"/effects", "a", route + "c"}, {"/effects/1", "a", route + "c"}} {
			wantStatus(t, r[0]+" of "+r[1], send(r[0], r[1], r[2]), http.StatusCreated)
			w.wantEffects(i + 1)
		}
		wantStatus(t, "same route, other path", send("/effects/2", "a", route+"c"), http.StatusUnprocessableEntity)
		wantStatus(t, "no caller", send("/effects", "", "c"), http.StatusForbidden)
		w.wantEffects(3)
	})
}

func TestRefusals(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		cfg.MaxRequest, cfg.Docs = 10, "https://example.com/keys"
		h := w.middleware(cfg).Wrap(http.HandlerFunc(w.effect))
		wantStatus(t, "first", post(h, "k", "x"), http.StatusCreated)
		for _, c := range []struct {
			name string
			got  *httptest.ResponseRecorder
			want int
			kind string
		}{
			{"no key", post(h, "", "x"), 400, "key-missing"},
			{"no string", post(h, "", "x", Header, "abc"), 400, "key-illegal"},
			{"too long a key", post(h, strings.Repeat("k", MaxKey+1), "x"), 400, "key-illegal"},
			{"too long a body", post(h, "k3", "12345678901"), 413, "request-too-long"},
			{"other body", post(h, "k", "y"), 422, "key-used"},
			{"no caller", post(h, "k", "x", "Tenant", ""), 403, "caller-unknown"},
		} {
			wantStatus(t, c.name, c.got, c.want)
			var p problem
			if err := json.Unmarshal(c.got.Body.Bytes(), &p); err != nil || p.Status != c.want || p.Type != problemTypes+c.kind ||
				p.Title == "" || p.Detail == "" || c.got.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %v: %s %s", c.name, err, c.got.Header(), c.got.Body)
			}
			if link := c.got.Header().Get("Link"); !strings.Contains(link, "https://example.com/keys") {
				t.Errorf("%s: link %q", c.name, link)
			}
		}
		w.wantEffects(1)
	})
}

func TestOtherMethodsAndOptionalKeysPass(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		h := w.middleware(Config{Optional: true}).Wrap(http.HandlerFunc(w.effect))
		wantStatus(t, "no key", post(h, "", "x"), http.StatusCreated)
		wantStatus(t, "no key", post(h, "", "x"), http.StatusCreated)
		r := httptest.NewRequest(http.MethodPut, "/effects", nil)
		r.Header.Set(Header, "whatever")
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		wantStatus(t, "PUT", out, http.StatusCreated)
		w.wantEffects(3)
		if n := w.count(`SELECT count(*) FROM amends_idempotency`); n != 0 {
			t.Errorf("%d records of requests without a key", n)
		}
	})
}

// TestErrors: an answer of 500 and above is not recorded; one of 400 and above
// undoes what the handler did in its transaction.
func TestErrors(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		status := 0
		h := w.middleware(cfg).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.effect(httptest.NewRecorder(), r)
			http.Error(rw, "no", status)
		}))
		calls := 0 // effects stay outside of a transaction
		for _, c := range []struct {
			name     string
			key      string
			status   int
			want     int
			replayed bool
		}{
			{"refused", "k", 404, 404, false},
			{"refused, again", "k", 500, 404, true},
			{"broken", "k2", 503, 503, false},
			{"broken, again", "k2", 503, 503, false},
			{"mended", "k2", 402, 402, false},
			{"mended, again", "k2", 500, 402, true},
		} {
			status = c.status
			got := post(h, c.key, "x")
			wantStatus(t, c.name, got, c.want)
			if replayed := got.Header().Get(HeaderReplayed) == "true"; replayed != c.replayed {
				t.Errorf("%s: replayed %v", c.name, replayed)
			}
			if !c.replayed {
				calls++
			}
			if cfg.Transactional {
				w.wantEffects(0)
			} else {
				w.wantEffects(calls)
			}
		}
	})
}

func TestLongAnswers(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		cfg.MaxResponse = 10
		var writeErr error
		h := w.middleware(cfg).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.effect(httptest.NewRecorder(), r)
			_, _ = io.WriteString(rw, "1234567890")
			_, writeErr = io.WriteString(rw, "1")
		}))
		for _, what := range []string{"first", "again"} {
			got := post(h, "k", "x")
			wantStatus(t, what, got, http.StatusInternalServerError)
			if !errors.Is(writeErr, ErrTooLong) || !strings.Contains(got.Body.String(), "answer-unrecordable") {
				t.Errorf("%s: Write said %v, the client saw %s", what, writeErr, got.Body)
			}
			if cfg.Transactional {
				w.wantEffects(0) // rolled back, each time
			} else {
				w.wantEffects(1) // it cannot be undone: it is not repeated
			}
		}
	})
}

func TestStreamsAreRefused(t *testing.T) {
	w := newWorld(t, outbox.SQLite, outbox.SQLiteDSN(t.TempDir()+"/a.db"))
	var flush, hijack error
	h := w.middleware(Config{}).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "whole")
		if _, ok := rw.(http.Flusher); ok {
			t.Error("the handler believes that it can stream")
		}
		c := http.NewResponseController(rw)
		flush = c.Flush()
		_, _, hijack = c.Hijack()
	}))
	if got := post(h, "k", "x"); got.Body.String() != "whole" {
		t.Errorf("got %q", got.Body)
	}
	for what, err := range map[string]error{"flush": flush, "hijack": hijack} {
		if !errors.Is(err, http.ErrNotSupported) || !strings.Contains(err.Error(), "Idempotency-Key") {
			t.Errorf("%s: %v", what, err)
		}
	}
	switching := w.middleware(Config{}).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusEarlyHints)
		rw.WriteHeader(http.StatusSwitchingProtocols)
	}))
	wantStatus(t, "101", post(switching, "k2", "x"), http.StatusInternalServerError)
}

func TestExpiredKeysAreNewAndPurged(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		h := w.middleware(cfg).Wrap(http.HandlerFunc(w.effect))
		for _, key := range []string{"a", "b", "c"} {
			wantStatus(t, key, post(h, key, "x"), http.StatusCreated)
		}
		purge := func(limit, want int) {
			t.Helper()
			if n, err := Purge(t.Context(), w.db, w.d, limit); err != nil || n != want {
				t.Fatalf("purged %d, want %d: %v", n, want, err)
			}
		}
		purge(10, 0)
		w.exec(`UPDATE amends_idempotency SET expires_at = 1`)
		wantStatus(t, "a key past its time, with another body", post(h, "a", "y"), http.StatusCreated)
		w.wantEffects(4)
		purge(1, 1)
		purge(10, 1)
		purge(10, 0)
		if again := post(h, "a", "y"); again.Header().Get(HeaderReplayed) != "true" {
			t.Error("the new record was purged with the old ones")
		}
		w.exec(`UPDATE amends_idempotency SET expires_at = 1, status = 0`) // runs, for as long as its lease
		purge(10, 0)
		w.exec(`UPDATE amends_idempotency SET lease_until = 1`)
		purge(10, 1)
	})
}

func TestIDIsTheSameEachTime(t *testing.T) {
	w := newWorld(t, outbox.SQLite, outbox.SQLiteDSN(t.TempDir()+"/a.db"))
	var ids []string
	h := w.middleware(Config{}).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		id, ok := ID(r.Context())
		if !ok || len(id) != 64 {
			t.Errorf("ID is %q, %v", id, ok)
		}
		ids = append(ids, id)
		rw.WriteHeader(http.StatusServiceUnavailable)
	}))
	post(h, "k", "x")
	post(h, "k", "x")
	post(h, "k2", "x")
	if len(ids) != 3 || ids[0] != ids[1] || ids[0] == ids[2] {
		t.Errorf("ids %q", ids)
	}
	if _, ok := ID(t.Context()); ok {
		t.Error("there is an ID without a request")
	}
}

func TestNewNamesEveryMistake(t *testing.T) {
	_, err := New(nil, nil, nil, &Config{
		Transactional: true, Optional: true, MaxRequest: -1, MaxResponse: -1, Lease: -1, Retention: time.Second,
	})
	if !errors.Is(err, ErrConfig) {
		t.Fatal(err)
	}
	for _, want := range []string{"MaxRequest", "MaxResponse", "Lease", "Optional", "dialect", "database", "caller"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	_, err = New(nil, nil, nil, &Config{Retention: time.Second, Outbox: outbox.New(outbox.SQLite, nil)})
	for _, want := range []string{"Retention", "Outbox"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	if _, err := Purge(t.Context(), nil, nil, 1); err == nil {
		t.Error("Purge takes no database")
	}
}
