package inbox

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/amends-dev/amends/outbox"
)

func TestClaimWith(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, d *outbox.Dialect) {
		inTx := func(fn func(tx *sql.Tx) error) {
			t.Helper()
			if err := outbox.InTx(t.Context(), db, nil, fn); err != nil {
				t.Fatal(err)
			}
		}
		for key, reply := range map[string]string{"some": "a\x00b", "none": ""} {
			inTx(func(tx *sql.Tx) error {
				_, found, err := Recorded(t.Context(), tx, d, key)
				if found || err != nil {
					t.Errorf("%q is on record before: %v", key, err)
				}
				return nil
			})
			for i := range 2 { // the second changes nothing
				inTx(func(tx *sql.Tx) error {
					c, err := ClaimWith(t.Context(), tx, d, key, []byte(reply)[:len(reply)*(1-i):len(reply)])
					if c.First != (i == 0) || i == 1 && string(c.Reply) != reply {
						t.Errorf("claim %d of %q: %+v", i, key, c)
					}
					return err
				})
			}
			inTx(func(tx *sql.Tx) error {
				got, found, err := Recorded(t.Context(), tx, d, key)
				if !found || string(got) != reply {
					t.Errorf("%q: reply %q, found %v", key, got, found)
				}
				return err
			})
		}
		inTx(func(tx *sql.Tx) error {
			if _, err := ClaimWith(t.Context(), tx, d, "", nil); !errors.Is(err, ErrKey) {
				t.Errorf("an empty key: %v", err)
			}
			return nil
		})
		standing, err := Standing(t.Context(), db, []string{"some", "none", "other", "SOME"})
		if err != nil || len(standing) != 2 || !standing["some"] || !standing["none"] {
			t.Errorf("standing: %v, %v", standing, err)
		}
		if standing, err = Standing(t.Context(), db, nil); err != nil || len(standing) > 0 {
			t.Errorf("standing of nothing: %v, %v", standing, err)
		}
	})
}
