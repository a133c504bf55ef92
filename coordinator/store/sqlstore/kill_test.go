package sqlstore_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/storetest"
)

// childVariable makes TestKill the child that is killed: it names the data
// directory.
const childVariable = "AMENDS_SQLSTORE_TEST_CHILD"

// TestKill kills a process that commits batches, at random moments, and finds
// every acknowledged batch afterwards, whole, and no part of any other.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childVariable); dir != "" {
		commitForever(t, dir)
		return
	}
	dir := t.TempDir()
	acknowledged := 0
	for round := range 12 {
		acknowledged = max(acknowledged, killedChild(t, dir))
		st := openAt(t, dir)
		found := verifyBatches(t, st, acknowledged)
		t.Logf("round %d: %d batches acknowledged, %d found", round, acknowledged, found)
		acknowledged = found
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acknowledged == 0 {
		t.Fatal("no batch was ever acknowledged")
	}
}

// killedChild runs a child until it is killed and returns the last batch that
// it said was committed.
func killedChild(t *testing.T, dir string) (last int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Errorf("the child says: %s", lines.Text())
			continue
		}
		last = n
		if timer == nil {
			after := time.Duration(rand.IntN(80_000)) * time.Microsecond
			timer = time.AfterFunc(after, func() {
				if err := cmd.Process.Kill(); err != nil {
					t.Errorf("kill: %v", err)
				}
			})
		}
	}
	if err := cmd.Wait(); err == nil || timer == nil {
		t.Fatalf("the child was not killed: %v", err)
	}
	return last
}

func commitForever(t *testing.T, dir string) {
	st := openAt(t, dir)
	leases, err := st.Acquire(t.Context(), "child", time.Hour, storetest.Shards)
	if err != nil || len(leases) != storetest.Shards {
		t.Fatalf("a restart waits for leases of the dead: %v, %v", leases, err)
	}
	var n int64
	if r, err := st.Load(t.Context(), "counter"); err == nil {
		n = r.Version
	}
	for {
		n++
		if err := st.Commit(t.Context(), store.Batch{Leases: leases, Writes: numbered(n)}); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n)
	}
}

// numbered is batch n: the n-th version of a counter, and up to 40 new
// transactions.
func numbered(n int64) []store.Write {
	writes := []store.Write{write("counter", n)}
	for i := range n * 7 % 41 {
		writes = append(writes, write(fmt.Sprintf("b%d-%d", n, i), 1))
	}
	return writes
}

func write(gid string, version int64) store.Write {
	now := time.UnixMicro(version).UTC()
	return store.Write{
		Record: store.Record{GID: gid, Version: version, CreatedAt: now, UpdatedAt: now, NextAt: now, EventSeq: version},
		Events: []store.Event{{GID: gid, Seq: version, At: now, Type: "step"}},
	}
}

// verifyBatches returns the number of batches, which are acknowledged ones and
// at most those behind them whose reply nobody read.
func verifyBatches(t *testing.T, st store.Store, acknowledged int) int {
	t.Helper()
	counter, err := st.Load(t.Context(), "counter")
	if err != nil {
		t.Fatal(err)
	}
	if counter.Version < int64(acknowledged) {
		t.Fatalf("%d batches were acknowledged, %d are there", acknowledged, counter.Version)
	}
	events, err := st.Events(t.Context(), "counter", 0, 1<<30)
	if err != nil || int64(len(events)) != counter.Version {
		t.Fatalf("%d events of %d batches: %v", len(events), counter.Version, err)
	}
	var want int64
	for n := int64(1); n <= counter.Version; n++ {
		want += int64(len(numbered(n))) - 1
	}
	counts, err := st.Count(t.Context(), store.Query{})
	if err != nil || counts[0] != want+1 {
		t.Fatalf("%d batches: %d transactions, want %d: %v", counter.Version, counts[0], want+1, err)
	}
	return int(counter.Version)
}
