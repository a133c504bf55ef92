package inbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// onDatabases runs a test on each kind of database.
func onDatabases(t *testing.T, fn func(t *testing.T, db *sql.DB, d *outbox.Dialect)) {
	t.Run("sqlite", func(t *testing.T) {
		b := embedded(t)
		fn(t, b.db, b.d)
	})
	t.Run("mysql", func(t *testing.T) {
		db := openDB(t, "mysql", servicestest.MySQL(t), outbox.MySQL, `CREATE TABLE handled (id TEXT)`)
		fn(t, db, outbox.MySQL)
	})
}

// claimAt makes a claim that is as old as is said.
func claimAt(t *testing.T, db *sql.DB, d *outbox.Dialect, key string, age time.Duration) {
	t.Helper()
	err := outbox.InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
		if _, err := Claim(t.Context(), tx, d, key); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.Context(), `UPDATE amends_inbox SET claimed_at = claimed_at - ? WHERE claim_key = ?`,
			age.Microseconds(), []byte(key))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// allOld pages through the old claims.
func allOld(t *testing.T, db *sql.DB, d *outbox.Dialect, age time.Duration, page int) (keys []string) {
	t.Helper()
	var last OldClaim
	for {
		claims, err := OldClaims(t.Context(), db, d, age, last, page)
		if err != nil || len(claims) > page {
			t.Fatal(len(claims), err)
		}
		for _, c := range claims {
			if c.Age <= age {
				t.Errorf("%q is %v old", c.Key, c.Age)
			}
			keys = append(keys, c.Key)
		}
		if len(claims) < page {
			return keys
		}
		last = claims[page-1]
	}
}

// TestOldClaims: pages hold what is older than asked, each once, the oldest
// first, also where many are of one moment; and what is forgotten is that.
func TestOldClaims(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, d *outbox.Dialect) {
		var want []string
		for i := range 7 {
			key := fmt.Sprintf("%c\x00 \xff%d", 'z'-i, i) // keys fall as the claims get younger
			claimAt(t, db, d, key, time.Duration(20-i)*time.Hour)
			want = append(want, key)
		}
		claimAt(t, db, d, "young", time.Hour)
		claimAt(t, db, d, "new", 0)
		for _, page := range []int{1, 2, 3, 7, 8, 1000} {
			if got := allOld(t, db, d, 10*time.Hour, page); !slices.Equal(got, want) {
				t.Errorf("pages of %d: %q, want %q", page, got, want)
			}
		}
		if _, err := db.ExecContext(t.Context(), `UPDATE amends_inbox SET claimed_at = 5`); err != nil {
			t.Fatal(err)
		}
		want = append(want, "young", "new") // all of one moment: the keys' order is left
		slices.Sort(want)
		for _, page := range []int{1, 2, 3, 9} {
			if got := allOld(t, db, d, time.Hour, page); !slices.Equal(got, want) {
				t.Errorf("of one moment, pages of %d: %q, want %q", page, got, want)
			}
		}
	})
}

// TestForgetClaims: only what was asked for goes, and of that only what is old;
// a key that was made anew meanwhile stays.
func TestForgetClaims(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, d *outbox.Dialect) {
		for _, key := range []string{"a", "b", "c\x00 d"} {
			claimAt(t, db, d, key, 20*time.Hour)
		}
		claimAt(t, db, d, "young", time.Hour)
		n, err := ForgetClaims(t.Context(), db, d, 10*time.Hour, []string{"a", "c\x00 d", "young", "none", "A"})
		if err != nil || n != 2 {
			t.Errorf("forgot %d, want 2: %v", n, err)
		}
		if got := allOld(t, db, d, 0, 10); !slices.Equal(got, []string{"b", "young"}) {
			t.Errorf("%q are left", got)
		}
		if n, err := ForgetClaims(t.Context(), db, d, 0, nil); n != 0 || err != nil {
			t.Error(n, err)
		}
		many := make([]string, 1000)
		for i := range many {
			many[i] = strings.Repeat("k", MaxKey-4) + fmt.Sprint(i)
		}
		many[999] = "b"
		if n, err := ForgetClaims(t.Context(), db, d, time.Hour, many); n != 1 || err != nil {
			t.Errorf("forgot %d of 1000 keys: %v", n, err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := ForgetClaims(ended, db, d, 0, []string{"young"}); err == nil {
			t.Error("nobody waits, and it forgets")
		}
		if _, err := OldClaims(t.Context(), db, d, 0, OldClaim{}, 0); err == nil {
			t.Error("a page of none")
		}
	})
}
