package sqlstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// TestMostShards: all shards of the largest store that Config allows are
// acquired by one call, renewed, written in one batch and asked what is due.
func TestMostShards(t *testing.T) {
	st, err := sqlstore.OpenSQLite(t.Context(), t.TempDir(), config(1<<16))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, st) })
	testMostShards(t, st, 1<<16)
}

// TestMySQLManyShards is the same with fewer: what is more than one statement.
func TestMySQLManyShards(t *testing.T) {
	const n = 9000
	st, err := sqlstore.OpenMySQL(t.Context(), servicestest.MySQL(t), config(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, st) })
	testMostShards(t, st, n)
}

func testMostShards(t *testing.T, st store.Store, n int) {
	t.Helper()
	check := func(what string, leases []store.Lease, err error) {
		t.Helper()
		if err != nil || len(leases) != n {
			t.Fatalf("%s: %d of %d shards: %v", what, len(leases), n, err)
		}
		for i, l := range leases {
			if l.Shard != i || l.Epoch != 1 {
				t.Fatalf("%s: number %d is %+v", what, i, l)
			}
		}
	}
	leases, err := st.Acquire(t.Context(), "owner", time.Hour, n)
	check("acquired", leases, err)
	held, err := st.Renew(t.Context(), "owner", time.Hour)
	check("renewed", held, err)
	batch, shards := store.Batch{Leases: leases}, make([]int, n)
	for i := range n {
		if shards[i] = n - 1 - i; i%1000 == 0 {
			w := write(fmt.Sprintf("t%05d", i), 1)
			w.Record.Shard, w.Record.NextAt = i, time.Unix(int64(n-i), 0)
			batch.Writes = append(batch.Writes, w)
		}
	}
	if err := st.Commit(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	q := store.DueQuery{Shards: shards, Until: time.Unix(int64(2*n), 0), Limit: 7}
	for i := 0; ; i += q.Limit {
		page, err := st.Due(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for k, r := range page {
			if r.GID != batch.Writes[i+k].Record.GID {
				t.Fatalf("number %d of what is due is %s", i+k, r.GID)
			}
		}
		if len(page) < q.Limit {
			if i+len(page) != len(batch.Writes) {
				t.Fatalf("%d are due, want %d", i+len(page), len(batch.Writes))
			}
			break
		}
		last := page[len(page)-1]
		q.AfterShard, q.AfterNext, q.AfterGID = last.Shard, last.NextAt, last.GID
	}
}
