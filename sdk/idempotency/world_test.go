package idempotency

import (
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// world is a service with a database.
type world struct {
	t   *testing.T
	dsn string
	db  *sql.DB
	d   *outbox.Dialect
}

const (
	makeEffects  = `CREATE TABLE effects (name VARCHAR(100) NOT NULL)`
	addEffect    = `INSERT INTO effects (name) VALUES (?)`
	countEffects = `SELECT count(*) FROM effects`
)

// worlds runs a test on each database.
func worlds(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		test(t, newWorld(t, outbox.SQLite, outbox.SQLiteDSN(filepath.Join(t.TempDir(), "a.db"))))
	})
	t.Run("mysql", func(t *testing.T) {
		cfg, err := mysql.ParseDSN(servicestest.MySQL(t))
		if err != nil {
			t.Fatal(err)
		}
		cfg.ClientFoundRows = strings.Contains(t.Name(), "Repeated") // counts rows in the other way
		test(t, newWorld(t, outbox.MySQL, cfg.FormatDSN()))
	})
}

func newWorld(t *testing.T, d *outbox.Dialect, dsn string) *world {
	t.Helper()
	w := openWorld(t, d, dsn)
	if err := outbox.Migrate(t.Context(), w.db, d); err != nil {
		t.Fatal(err)
	}
	w.exec(makeEffects)
	return w
}

func openWorld(t *testing.T, d *outbox.Dialect, dsn string) *world {
	t.Helper()
	db, err := sql.Open(d.Name(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(30)
	db.SetMaxIdleConns(30)
	t.Cleanup(func() { db.Close() })
	return &world{t: t, dsn: dsn, db: db, d: d}
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) count(query string) (n int) {
	w.t.Helper()
	if err := w.db.QueryRowContext(w.t.Context(), query).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) wantEffects(want int) {
	w.t.Helper()
	if got := w.count(countEffects); got != want {
		w.t.Errorf("%d effects, want %d", got, want)
	}
}

func tenant(r *http.Request) string { return r.Header.Get("Tenant") }

func (w *world) middleware(cfg Config) *Middleware {
	w.t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := New(w.db, w.d, tenant, &cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// effect is a handler that has one effect, in its transaction where it has one.
func (w *world) effect(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		if tx, ok := Tx(r.Context()); ok {
			_, err = tx.ExecContext(r.Context(), addEffect, string(body))
		} else {
			_, err = w.db.ExecContext(r.Context(), addEffect, string(body))
		}
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Add("Location", "/effects/1")
	rw.Header().Add("X-Two", "a")
	rw.Header().Add("X-Two", "b")
	rw.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(rw, "did "+string(body))
}

// modes runs a test with each of the two kinds of guarantee.
func modes(t *testing.T, test func(t *testing.T, w *world, cfg Config)) {
	t.Helper()
	worlds(t, func(t *testing.T, w *world) {
		for name, transactional := range map[string]bool{"transactional": true, "lease": false} {
			t.Run(name, func(t *testing.T) {
				here := *w
				here.t = t
				here.exec(`DELETE FROM effects`)
				here.exec(`DELETE FROM amends_idempotency`)
				test(t, &here, Config{Transactional: transactional})
			})
		}
	})
}

// post sends a request of tenant "a" to a handler.
func post(h http.Handler, key, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/effects", strings.NewReader(body))
	r.Header.Set("Tenant", "a")
	if key != "" {
		r.Header.Set(Header, `"`+key+`"`)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	out := httptest.NewRecorder()
	h.ServeHTTP(out, r)
	return out
}

func wantStatus(t *testing.T, what string, got *httptest.ResponseRecorder, want int) {
	t.Helper()
	if got.Code != want {
		t.Fatalf("%s: status %d, want %d: %s", what, got.Code, want, got.Body)
	}
}
