package sqlstore_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// TestMySQLFence gives up a commit whose COMMIT is still on its way. A later
// commit under the same lease, of nothing, waits until it has arrived.
func TestMySQLFence(t *testing.T) {
	dsn := servicestest.MySQL(t)
	p := startProxy(t, dsn)
	conf, err := mysql.ParseDSN(p.dsn)
	if err != nil {
		t.Fatal(err)
	}
	conf.ReadTimeout = 200 * time.Millisecond // of an answer to COMMIT nothing else gives up
	slow, direct := openMySQL(t, conf.FormatDSN()), openMySQL(t, dsn)
	leases, err := slow.Acquire(t.Context(), "owner", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	atEnd, goOn := make(chan struct{}), make(chan struct{})
	p.nextBy(func(uint32) verdict {
		close(atEnd)
		<-goOn
		return pass
	})
	ctx, giveUp := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if err := slow.Commit(ctx, store.Batch{Leases: leases, Writes: []store.Write{write("t", 1)}}); err == nil {
			t.Error("a commit that was given up succeeded")
		}
	})
	<-atEnd
	giveUp()
	all.Wait()
	fenced := make(chan error, 1)
	all.Go(func() { fenced <- direct.Commit(t.Context(), store.Batch{Leases: leases}) })
	select {
	case err := <-fenced:
		t.Errorf("the fence stands (%v) before the commit has arrived", err)
		fenced <- err
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := direct.Load(t.Context(), "t"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("before it arrives: %v", err)
	}
	close(goOn)
	if err := <-fenced; err != nil {
		t.Fatal(err)
	}
	if _, err := direct.Load(t.Context(), "t"); err != nil {
		t.Errorf("behind the fence: %v", err)
	}
	all.Wait()
}
