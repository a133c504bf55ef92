package idempotency_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk/idempotency"
)

// tenantOf stands for your authentication.
func tenantOf(r *http.Request) string {
	tenant, _, _ := r.BasicAuth()
	return tenant
}

func newMux(db *sql.DB, box *outbox.Outbox) (*http.ServeMux, error) {
	keys, err := idempotency.New(db, outbox.SQLite, tenantOf, &idempotency.Config{Transactional: true, Outbox: box})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /transfers", keys.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tx, _ := idempotency.Tx(r.Context()) // ended by the middleware
		id, _ := idempotency.ID(r.Context())
		if _, err := tx.ExecContext(r.Context(), "INSERT INTO transfers (id) VALUES (?)", id); err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		if err := box.Write(r.Context(), tx, outbox.Message{ID: id, Topic: "transfers", Key: id}); err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})))
	return mux, nil
}

// purge is to be run from time to time.
func purge(ctx context.Context, db *sql.DB) error {
	const some = 1000
	for n := some; n == some; {
		var err error
		if n, err = idempotency.Purge(ctx, db, outbox.SQLite, some); err != nil {
			return err
		}
	}
	return nil
}

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(dir, "shop.db")))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	if err := outbox.Migrate(ctx, db, outbox.SQLite); err != nil {
		log.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE transfers (id TEXT PRIMARY KEY)"); err != nil {
		log.Fatal(err)
	}
	mux, err := newMux(db, outbox.New(outbox.SQLite, nil))
	if err != nil {
		log.Fatal(err)
	}
	for _, body := range []string{`{"cents":5}`, `{"cents":5}`, `{"cents":6}`} {
		r := httptest.NewRequest(http.MethodPost, "/transfers", strings.NewReader(body))
		r.SetBasicAuth("tenant-1", "secret")
		r.Header.Set("Idempotency-Key", `"8e03978e-40d5-43dd-bc93-6894a57f9324"`)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get(idempotency.HeaderReplayed) == "true")
	}
	fmt.Println(purge(ctx, db))
	// Output:
	// 201 false
	// 201 true
	// 422 false
	// <nil>
}
