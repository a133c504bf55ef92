package sdk

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

// TestWitnessTellsEachCallItsOwn asks for many claims at once, of which every third was not made.
func TestWitnessTellsEachCallItsOwn(t *testing.T) {
	db := database(t)
	const calls = 3 * witnessBatch
	key := func(i int) string { return fmt.Sprintf("g%d b do", i) }
	err := outbox.InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
		for i := range calls {
			if i%3 == 0 {
				continue
			}
			if _, err := inbox.ClaimWith(t.Context(), tx, outbox.SQLite, key(i), []byte{markDone}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{db: db}
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			if err := w.stands(t.Context(), key(i)); (i%3 == 0) != errors.Is(err, errEnded) || i%3 != 0 && err != nil {
				t.Errorf("%s: %v", key(i), err)
			}
		})
	}
	wg.Wait()
	if w.asking || len(w.waiting) > 0 {
		t.Errorf("asking %v, and %d wait", w.asking, len(w.waiting))
	}
}

// TestWitnessThatCannotAsk: nobody knows, and the next one asks again.
func TestWitnessThatCannotAsk(t *testing.T) {
	db := database(t)
	w := &witness{db: db}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.stands(t.Context(), "g b do"); err == nil || errors.Is(err, errEnded) {
			t.Errorf("error %v, want that of the database", err)
		}
	}
}
