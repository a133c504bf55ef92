package engine

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/ahead"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

func always(dispatch.Call) bool { return true }

// counting counts what is written.
type counting struct {
	store.Store
	mu            sync.Mutex
	commits, rows int
}

func (c *counting) watch() *faulty {
	return &faulty{Store: c.Store, commit: func(b store.Batch, real func() error) error {
		time.Sleep(5 * time.Millisecond) // as a disk does
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(b.Writes) > 0 {
			c.commits, c.rows = c.commits+1, c.rows+len(b.Writes)
		}
		return real()
	}}
}

// cost runs one transaction alone, whose commits are all in line.
func cost(t *testing.T, recorded bool, run func(r *running)) (rows int, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &counting{Store: newStore()}
		r := launch(t, c.watch(), nil, func(call dispatch.Call) txn.Replied {
			time.Sleep(time.Millisecond)
			return ok(call)
		})
		if recorded {
			r.p.recorded = always
		}
		r.startSaga("first", steps(1)) // when this one is there, shards are owned
		r.wait("first")
		before, began := c.rows, time.Now()
		run(r)
		took = time.Since(began)
		rows = c.rows - before
	})
	return rows, took
}

// TestCommitsInLine counts rows, and the commits that a caller waits for, by the
// 5 ms that each of them takes; a call takes 1 ms. Kills: soft-not-held,
// never-ahead.
func TestCommitsInLine(t *testing.T) {
	line := func(n int, mod ...func(*saga.Definition)) func(r *running) {
		return func(r *running) { r.startSaga("g", steps(n, mod...)); r.wait("g") }
	}
	abreast := func(d *saga.Definition) { d.Steps[1].After = nil }
	withPivot := func(d *saga.Definition) { d.Steps[1].Kind, d.Steps[2].Kind = saga.Pivot, saga.Retriable }
	trip := func(r *running) {
		begin(r.t, r, "x", time.Minute)
		for _, name := range []string{"seat", "room"} {
			if _, err := r.Try(r.t.Context(), "x", tcc.Branch{Name: name, Action: "svc." + name}); err != nil {
				r.t.Fatal(err)
			}
		}
		if _, err := r.Commit(r.t.Context(), "x"); err != nil {
			r.t.Fatal(err)
		}
		r.wait("x")
	}
	for _, c := range []struct {
		name              string
		run               func(r *running)
		rows, commits     int // where replies are recorded
		rowsOf, commitsOf int // and where they are not
		calls             int // in line
	}{
		{name: "two steps", run: line(2), rows: 2, commits: 2, rowsOf: 3, commitsOf: 3, calls: 2},
		{name: "two steps abreast", run: line(2, abreast), rows: 2, commits: 2, calls: 1},
		{name: "eight steps", run: line(8), rows: 2, commits: 2, rowsOf: 9, commitsOf: 9, calls: 8},
		{name: "a pivot", run: line(3, withPivot), rows: 4, commits: 4, rowsOf: 4, commitsOf: 4, calls: 3},
		{name: "tcc", run: trip, rows: 5, commits: 5, calls: 3},
	} {
		rows, took := cost(t, true, c.run)
		if want := 5*time.Millisecond*time.Duration(c.commits) + time.Millisecond*time.Duration(c.calls); rows != c.rows || took != want {
			t.Errorf("%s, recorded: %d rows in %v, want %d in %v", c.name, rows, took, c.rows, want)
		}
		if c.rowsOf == 0 {
			continue // it depends on which of two answers of the same moment comes first
		}
		rows, took = cost(t, false, c.run)
		if want := 5*time.Millisecond*time.Duration(c.commitsOf) + time.Millisecond*time.Duration(c.calls); rows != c.rowsOf || took != want {
			t.Errorf("%s, not recorded: %d rows in %v, want %d in %v", c.name, rows, took, c.rowsOf, want)
		}
	}
}

// blocked runs a saga whose commits after the first wait for the returned channel.
func blocked(t *testing.T, d *saga.Definition, recorded func(dispatch.Call) bool, answer func(dispatch.Call) txn.Replied) (*running, *faulty, chan struct{}) {
	t.Helper()
	gate := make(chan struct{})
	st := &faulty{Store: newStore()}
	st.commit = func(b store.Batch, real func() error) error {
		for _, w := range b.Writes {
			if w.Record.Version > 1 {
				<-gate
			}
		}
		if st.cut.Load() {
			return store.ErrClosed
		}
		return real()
	}
	r := launch(t, st, nil, answer)
	r.p.recorded = recorded
	r.startSaga("s", d)
	time.Sleep(time.Second)
	return r, st, gate
}

// seen is what was called, in order.
func (p *participants) seenOps() (ops []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.seen {
		ops = append(ops, c.Op.String()+" "+c.Name)
	}
	return ops
}

// TestCallsAheadOfTheStore: what is called while nothing can be stored. Kills:
// soft-unrecorded, soft-pivot, soft-past-refusal, undo-before-durable,
// wait-before-durable.
func TestCallsAheadOfTheStore(t *testing.T) {
	refuse := func(name string) func(dispatch.Call) txn.Replied {
		return func(c dispatch.Call) txn.Replied {
			if c.Name == name {
				return txn.Replied{Outcome: txn.Refused, Message: "no"}
			}
			return ok(c)
		}
	}
	except := func(name string) func(dispatch.Call) bool {
		return func(c dispatch.Call) bool { return c.Name != name }
	}
	pivotAt := func(i int) func(d *saga.Definition) {
		return func(d *saga.Definition) {
			d.Steps[i].Kind = saga.Pivot
			for j := i + 1; j < len(d.Steps); j++ {
				d.Steps[j].Kind = saga.Retriable
			}
		}
	}
	free := func(d *saga.Definition) { d.Steps[1].Kind = saga.Retriable }
	for _, c := range []struct {
		name     string
		d        *saga.Definition
		recorded func(dispatch.Call) bool
		answer   func(dispatch.Call) txn.Replied
		want     []string
		end      txn.State
	}{
		{"all recorded", steps(3), always, ok, []string{"do a", "do b", "do c"}, txn.Committed},
		{"none recorded", steps(3), nil, ok, []string{"do a"}, txn.Committed},
		{"the second is not", steps(3), except("b"), ok, []string{"do a", "do b"}, txn.Committed},
		{"refused on the way", steps(3), always, refuse("b"), []string{"do a", "do b"}, txn.RolledBack},
		{"a pivot", steps(3, pivotAt(1)), always, ok, []string{"do a"}, txn.Committed},
		{"a pivot at first", steps(3, pivotAt(0)), always, ok, []string{"do a"}, txn.Committed},
		{"what cannot be undone", steps(3, free), always, ok, []string{"do a"}, txn.Committed},
	} {
		synctest.Test(t, func(t *testing.T) {
			answer := c.answer
			r, _, gate := blocked(t, c.d, c.recorded, func(call dispatch.Call) txn.Replied {
				if call.Op == txn.Undo {
					return ok(call)
				}
				return answer(call)
			})
			ended := make(chan txn.State, 1)
			go func() { ended <- r.wait("s") }()
			synctest.Wait()
			if got := r.p.seenOps(); !slices.Equal(got, c.want) {
				t.Errorf("%s: %q were called, want %q", c.name, got, c.want)
			}
			if len(ended) != 0 {
				t.Errorf("%s: the end was told before it was stored", c.name)
			}
			close(gate)
			if got := <-ended; got != c.end {
				t.Errorf("%s: ended as %v, want %v", c.name, got, c.end)
			}
			checkTrail(t, r.store, "s")
		})
	}
}

// TestNoMoreThanSoManyAhead: a long saga stops and stores. Kills: endless-ahead.
func TestNoMoreThanSoManyAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &saga.Definition{Name: "long"}
		for i := range 3 * ahead.Max {
			s := saga.Step{Name: "s" + string(rune('a'+i)), Action: "svc.a"}
			if i > 0 {
				s.After = []int{i - 1}
			}
			d.Steps = append(d.Steps, s)
		}
		r, _, gate := blocked(t, d, always, ok)
		if n := r.p.calls(txn.Do); n != 1+ahead.Max {
			t.Errorf("%d steps were called, want 1 and %d ahead", n, ahead.Max)
		}
		close(gate)
		if got := r.wait("s"); got != txn.Committed {
			t.Errorf("ended as %v", got)
		}
	})
}

// TestWhatWasCalledAheadIsUndone: the coordinator crashes with steps called
// ahead of what it had stored, and the saga turns back before its first step
// says again that it was done. Kills: no-presumption, ahead-not-kept.
func TestWhatWasCalledAheadIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, st, gate := blocked(t, steps(4), always, func(c dispatch.Call) txn.Replied {
			if c.Name == "c" {
				return txn.Replied{}
			}
			return ok(c)
		})
		if got, want := r1.p.seenOps(), []string{"do a", "do b", "do c"}; !slices.Equal(got, want) {
			t.Fatalf("%q were called, want %q", got, want)
		}
		st.cut.Store(true)
		close(gate)
		_ = r1.end()
		silent := func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do {
				return txn.Replied{Outcome: txn.Unknown, Message: "away"}
			}
			return ok(c)
		}
		for range 2 { // the second takes over from the first, which has written meanwhile
			second := &faulty{Store: st.Store}
			r2 := launch(t, second, nil, silent)
			time.Sleep(time.Minute)
			second.cut.Store(true)
			_ = r2.end()
		}
		r3 := launch(t, st.Store, nil, silent)
		time.Sleep(time.Minute)
		if _, err := r3.Abort(t.Context(), "s", "alice", "enough"); err != nil {
			t.Fatal(err)
		}
		if got := r3.wait("s"); got != txn.RolledBack {
			t.Errorf("ended as %v", got)
		}
		got := r3.p.seenOps()
		got = slices.DeleteFunc(got, func(op string) bool { return op == "do a" })
		if want := []string{"undo d", "undo c", "undo b", "undo a"}; !slices.Equal(got, want) {
			t.Errorf("%q were called, want %q", got, want)
		}
		checkTrail(t, st.Store, "s")
	})
}

// TestNothingIsPresumedOfWhatIsKnown: without a crash, or where it had to try
// again before, a saga undoes what it called and nothing else.
func TestNothingIsPresumedOfWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r1 := launch(t, st, nil, func(dispatch.Call) txn.Replied { return txn.Replied{Outcome: txn.Unknown} })
		r1.p.recorded = always
		r1.startSaga("s", steps(3))
		time.Sleep(time.Minute)
		_ = r1.end()
		r2 := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do {
				return txn.Replied{Outcome: txn.Refused}
			}
			return ok(c)
		})
		if got := r2.wait("s"); got != txn.RolledBack {
			t.Errorf("ended as %v", got)
		}
		if n := r2.p.calls(txn.Undo); n != 1 {
			t.Errorf("%d undos of one step", n)
		}
	})
}

// TestSoftIsStoredSoon: what is held is stored by itself, when somebody waits
// for it, and before the end.
func TestSoftIsStoredSoon(t *testing.T) {
	version := func(r *running) int64 {
		rec, err := r.store.Load(r.t.Context(), "s")
		if err != nil {
			r.t.Fatal(err)
		}
		return rec.Version
	}
	slow := func(c dispatch.Call) txn.Replied {
		if c.Name == "b" {
			time.Sleep(time.Minute)
		}
		return ok(c)
	}
	begun := func(t *testing.T) *running {
		r := launch(t, newStore(), nil, slow)
		r.p.recorded = always
		r.startSaga("s", steps(2))
		time.Sleep(softHold / 2)
		if n := version(r); n != 1 || r.p.calls(txn.Do) != 2 {
			t.Errorf("version %d is stored, and %d steps were called, want 1 and 2", n, r.p.calls(txn.Do))
		}
		return r
	}
	synctest.Test(t, func(t *testing.T) {
		r := begun(t)
		time.Sleep(softHold)
		if n := version(r); n != 2 {
			t.Errorf("version %d is stored after the time, want 2", n)
		}
		r.wait("s")
	})
	synctest.Test(t, func(t *testing.T) {
		r := begun(t)
		asked := time.Now()
		if _, created, err := r.StartSaga(t.Context(), "s", steps(2), nil); err != nil || created || time.Since(asked) > softHold/4 {
			t.Errorf("the same start: created %v, %v, after %v", created, err, time.Since(asked))
		}
		r.mustAct(Command{Verb: pauseIt, GID: "s"})
		if n := version(r); n != 2 {
			t.Errorf("version %d is stored with the pause, want 2: one for both", n)
		}
		r.mustAct(Command{Verb: resume, GID: "s"})
		r.wait("s")
	})
	synctest.Test(t, func(t *testing.T) {
		r := begun(t)
		r.cfg.DrainTimeout = time.Second
		_ = r.end()
		if n := version(r); n != 2 {
			t.Errorf("version %d is stored at the end, want 2", n)
		}
	})
}
