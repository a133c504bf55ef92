package idempotency

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// TestConcurrentRequestsHaveOneEffect: fifty at once, of each of a few keys.
func TestConcurrentRequestsHaveOneEffect(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		const keys, each = 4, 50
		h := w.middleware(cfg).Wrap(http.HandlerFunc(w.effect))
		var created, conflicts atomic.Int64
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range keys * each {
			wg.Go(func() {
				<-start
				switch got := post(h, fmt.Sprintf("key %d", i%keys), "x"); got.Code {
				case http.StatusCreated:
					if got.Header().Get(HeaderReplayed) == "" {
						created.Add(1)
					}
				case http.StatusConflict:
					conflicts.Add(1)
					if got.Header().Get("Retry-After") == "" {
						t.Error("409 without Retry-After")
					}
				default:
					t.Errorf("status %d: %s", got.Code, got.Body)
				}
			})
		}
		close(start)
		wg.Wait()
		t.Logf("%d created, %d conflicts", created.Load(), conflicts.Load())
		w.wantEffects(keys)
		if created.Load() != keys {
			t.Errorf("%d requests were told that they did it, want %d", created.Load(), keys)
		}
		for i := range keys {
			wantStatus(t, "afterwards", post(h, fmt.Sprintf("key %d", i), "x"), http.StatusCreated)
		}
		w.wantEffects(keys)
	})
}

// slow is a handler that tells when it runs and waits to be let go.
type slow struct{ began, finish chan struct{} }

func newSlow() slow { return slow{make(chan struct{}), make(chan struct{})} }

func (s slow) before(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.began <- struct{}{}
		<-s.finish
		next(rw, r)
	})
}

func TestRunningRequestIsAConflict(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		s := newSlow()
		h := w.middleware(cfg).Wrap(s.before(w.effect))
		first := make(chan *httptest.ResponseRecorder)
		go func() { first <- post(h, "k", "x") }()
		<-s.began
		got := post(h, "k", "x")
		wantStatus(t, "meanwhile", got, http.StatusConflict)
		if got.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		wantStatus(t, "meanwhile, another body", post(h, "k", "y"), http.StatusUnprocessableEntity)
		close(s.finish)
		wantStatus(t, "first", <-first, http.StatusCreated)
		wantStatus(t, "afterwards", post(h, "k", "x"), http.StatusCreated)
		w.wantEffects(1)
	})
}

// TestHandlerPastItsLease: another request takes the key of a handler that was
// away for too long. Its transaction, which ends later, is rolled back. On SQLite
// the transaction keeps the other one out instead.
func TestHandlerPastItsLease(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		if cfg.Transactional && w.d == outbox.SQLite {
			return
		}
		s := newSlow()
		m := w.middleware(cfg)
		late := make(chan *httptest.ResponseRecorder)
		go func() { late <- post(m.Wrap(s.before(w.effect)), "k", "x") }()
		<-s.began
		w.exec(`UPDATE amends_idempotency SET lease_until = 1`)
		wantStatus(t, "the other", post(m.Wrap(http.HandlerFunc(w.effect)), "k", "x"), http.StatusCreated)
		close(s.finish)
		if cfg.Transactional {
			wantStatus(t, "the late one", <-late, http.StatusConflict)
			w.wantEffects(1)
		} else {
			wantStatus(t, "the late one", <-late, http.StatusCreated)
			w.wantEffects(2) // at least once: as documented
		}
		if again := post(m.Wrap(http.HandlerFunc(w.effect)), "k", "x"); again.Header().Get(HeaderReplayed) != "true" {
			t.Error("there is no record")
		}
	})
}

// TestDeadLease: the key of a process that died is for the same request only, and
// of many that ask for it one gets it.
func TestDeadLease(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		m := w.middleware(cfg)
		r := httptest.NewRequest(http.MethodPost, "/effects", strings.NewReader("x"))
		key, mark := digest("a", "POST /effects", "k"), fingerprint(r, []byte("x"))
		if _, found, _, err := m.store.claim(t.Context(), key, mark, -time.Second, time.Hour); err != nil || found != claimed {
			t.Fatal(found, err)
		}
		h := m.Wrap(http.HandlerFunc(w.effect))
		wantStatus(t, "another body", post(h, "k", "y"), http.StatusUnprocessableEntity)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got := post(h, "k", "x"); got.Code != http.StatusCreated && got.Code != http.StatusConflict {
					t.Errorf("status %d: %s", got.Code, got.Body)
				}
			})
		}
		wg.Wait()
		w.wantEffects(1)
	})
}

// TestTwoTakeADeadLease: both saw it, one gets it.
func TestTwoTakeADeadLease(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		s := w.middleware(Config{}).store
		key, mark := digest("k"), digest("p")
		dead, _, _, err := s.claim(t.Context(), key, mark, -time.Second, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []int64{1, 0} {
			n, err := s.exec(t.Context(), s.db, s.take, mark, i+1, int64(-1), int64(1e9), key, dead.token)
			if err != nil || n != want {
				t.Errorf("take %d affected %d rows, want %d: %v", i, n, want, err)
			}
		}
	})
}

// TestWhoLostAClaimRecordsNothing, also while the one who took it still runs; and
// what is recorded is not given up.
func TestWhoLostAClaimRecordsNothing(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		s := w.middleware(Config{}).store
		key, mark := digest("k"), digest("p")
		claim := func(want verdict) claim {
			t.Helper()
			c, found, _, err := s.claim(t.Context(), key, mark, -time.Second, time.Hour)
			if err != nil || found != want {
				t.Fatalf("found %d, want %d: %v", found, want, err)
			}
			return c
		}
		late, now := claim(claimed), claim(claimed)
		if err := s.keep(t.Context(), s.db, late, answer{status: 201}); !errors.Is(err, errTaken) {
			t.Errorf("the late one: %v", err)
		}
		if err := s.drop(t.Context(), late); err != nil {
			t.Error(err)
		}
		if err := s.keep(t.Context(), s.db, now, answer{status: 202}); err != nil {
			t.Errorf("the other: %v", err)
		}
		if err := s.drop(t.Context(), now); err != nil {
			t.Error(err)
		}
		if r, err := s.lookUp(t.Context(), key); err != nil || r.status != 202 {
			t.Errorf("recorded %d, %v", r.status, err)
		}
		claim(answered)
	})
}

func TestPanicFreesTheKey(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		m := w.middleware(cfg)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			post(m.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				w.effect(rw, r)
				panic("boom")
			})), "k", "x")
		}()
		wantStatus(t, "again", post(m.Wrap(http.HandlerFunc(w.effect)), "k", "x"), http.StatusCreated)
		if cfg.Transactional {
			w.wantEffects(1)
		} else {
			w.wantEffects(2)
		}
	})
}

// TestClientGone: the handler finishes for a client that has hung up, and the
// client finds the answer when it asks again.
func TestClientGone(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		s := newSlow()
		var gone context.Context
		h := w.middleware(cfg).Wrap(s.before(func(rw http.ResponseWriter, r *http.Request) {
			if err := r.Context().Err(); err != nil {
				t.Errorf("the handler's context ended: %v", err)
			}
			w.effect(rw, r)
		}))
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if gone == nil {
				gone = r.Context() //nolint:fatcontext // the one that ends with the client
			}
			h.ServeHTTP(rw, r)
		}))
		defer server.Close()
		send := func(ctx context.Context) (*http.Response, error) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/effects", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Tenant", "a")
			r.Header.Set(Header, `"k"`)
			return server.Client().Do(r) //nolint:bodyclose // by those who get one
		}
		ctx, hangUp := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			res, err := send(ctx)
			if err == nil {
				err = res.Body.Close()
			}
			failed <- err
		}()
		<-s.began
		hangUp()
		if err := <-failed; err == nil {
			t.Fatal("the client got an answer")
		}
		<-gone.Done() // the server has noticed
		close(s.finish)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			res, err := send(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode == http.StatusCreated && res.Header.Get(HeaderReplayed) == "true" {
				break
			}
			if res.StatusCode != http.StatusConflict || time.Now().After(deadline) {
				t.Fatalf("status %d", res.StatusCode)
			}
		}
		w.wantEffects(1)
	})
}

func TestDatabaseAway(t *testing.T) {
	modes(t, func(t *testing.T, w *world, cfg Config) {
		away := openWorld(t, w.d, w.dsn)
		m := away.middleware(cfg)
		h := m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }))
		away.db.Close()
		got := post(h, "k", "x")
		wantStatus(t, "database away", got, http.StatusServiceUnavailable)
		if got.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	})
}

// TestTransactionThatEnds: by a mistake of the handler, or because the server rolled
// it back and the handler went on. The client is not told that all is well.
func TestTransactionThatEnds(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		for name, end := range map[string]func(tx *sql.Tx) error{
			"handler":                  (*sql.Tx).Rollback,
			"server":                   func(tx *sql.Tx) error { _, err := tx.Exec("ROLLBACK"); return err },
			"server, and begins again": func(tx *sql.Tx) error { _, err := tx.Exec("ROLLBACK"); _, _ = tx.Exec("BEGIN"); return err },
		} {
			var log bytes.Buffer
			h := w.middleware(Config{Transactional: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}).
				Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					w.effect(rw, r)
					tx, _ := Tx(r.Context())
					if err := end(tx); err != nil {
						t.Error(err)
					}
				}))
			wantStatus(t, name, post(h, name, "x"), http.StatusServiceUnavailable)
			if !strings.Contains(log.String(), "did not last as long as its handler") {
				t.Errorf("%s: logged %s", name, log.String())
			}
			wantStatus(t, name+", again", post(w.middleware(Config{Transactional: true}).Wrap(http.HandlerFunc(w.effect)), name, "x"), http.StatusCreated)
		}
		w.wantEffects(3)
	})
}
