package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// SeedVariable names the environment variable that sets the seed of the random
// workloads; without it each run draws its own and prints it when it fails.
const SeedVariable = "AMENDS_STORETEST_SEED"

func modelCases() []testCase {
	return []testCase{
		{"Random/AgainstModel", func(f *fixture) { runRandom(f, pickSeed(f), 500) }},
		{"Random/LostReplies", func(f *fixture) {
			seed := pickSeed(f)
			f.st = NewFaults(f.st, &FaultConfig{Seed: seed, LoseRequests: 0.2, LoseReplies: 0.2, Repeat: 0.2})
			runRandom(f, seed, 250)
		}},
	}
}

// Transcript runs the random workload of a seed, n operations of it, and
// returns what each of them answered, and every row and event at the end. Two
// stores that keep the same contract write the same transcript.
func Transcript(t *testing.T, b Backend, seed uint64, n int) string {
	return runRandom(newFixture(t, b), seed, n).log.String()
}

func pickSeed(f *fixture) uint64 {
	seed := rand.Uint64() % 1_000_000
	if text := os.Getenv(SeedVariable); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		f.ok(err)
		seed = n
	}
	f.Cleanup(func() {
		if f.Failed() {
			f.Logf("again with %s=%d", SeedVariable, seed)
		}
	})
	return seed
}

// workload makes random operations; what it does depends on its seed alone.
type workload struct {
	*fixture
	r      *rand.Rand
	m      *model
	stale  []store.Batch // committed before, to be repeated late
	owners []string
	now    time.Time
	log    strings.Builder // what every operation answered
}

func runRandom(f *fixture, seed uint64, n int) *workload {
	f.Helper()
	w := &workload{fixture: f, r: rand.New(rand.NewPCG(seed, 1)), m: newModel(), now: day,
		owners: []string{"owner", "second", "third"}}
	for shard, l := range f.leases {
		w.m.epochs[shard], w.m.owners[shard] = l.Epoch, "owner"
	}
	for range n {
		w.now = w.now.Add(time.Duration(w.r.IntN(3_000_000)) * time.Microsecond)
		w.step()
	}
	w.compareAll()
	return w
}

func (w *workload) step() {
	switch p := w.r.IntN(100); {
	case p < 45:
		w.commitRandom()
	case p < 50:
		w.repeatLate()
	case p < 53:
		w.moveLeases()
	case p < 55:
		w.giveLeases()
	case p < 65:
		w.compareList()
	case p < 72:
		w.compareDue()
	case p < 77:
		w.compareCount()
	case p < 87:
		w.compareOne()
	case p < 90:
		w.purge()
	case p < 91:
		w.compareAll()
	default:
		w.commitRandom()
	}
}

func (w *workload) gid() string {
	ids := identifiers()
	if n := w.r.IntN(120); n < len(ids) {
		return ids[n]
	}
	return fmt.Sprintf("t%d", w.r.IntN(60))
}

func (w *workload) commitRandom() {
	var b store.Batch
	used, leased := map[string]bool{}, map[int]bool{}
	for range 1 + w.r.IntN(12) {
		gid := w.gid()
		if used[gid] {
			continue
		}
		used[gid] = true
		wr := w.write(gid)
		b.Writes = append(b.Writes, wr)
		if shard := wr.Record.Shard; !leased[shard] {
			leased[shard] = true
			l := store.Lease{Shard: shard, Epoch: w.m.epochs[shard]}
			if w.r.IntN(60) == 0 {
				l.Epoch--
			}
			b.Leases = append(b.Leases, l)
		}
	}
	w.commit(b)
	w.stale = append(w.stale, b)
}

// write makes the next write of a transaction, or its first.
func (w *workload) write(gid string) store.Write {
	old, found := w.m.rows[gid]
	if !found {
		wr := create(gid)
		r := &wr.Record
		r.CreatedAt, r.UpdatedAt, r.NextAt = w.now, w.now, w.now.Add(time.Second)
		r.Kind, r.Name = pick(w.r, "saga", "tcc"), pick(w.r, "transfer", "trip")
		r.Namespace = pick(w.r, "", "blue", "Blue")
		if w.r.IntN(2) == 0 {
			r.Labels = map[string]string{"tenant": pick(w.r, "1", "2", "3"), "vip": pick(w.r, "yes", "no")}
		}
		return wr
	}
	wr := next(store.Write{Record: old})
	r := &wr.Record
	r.UpdatedAt, r.State, r.Paused = w.now, uint8(1+w.r.IntN(4)), w.r.IntN(8) == 0
	r.Stalled, r.WaitsFor = w.r.IntN(5) == 0, pick(w.r, "", "", "banks", "shops.eu")
	switch w.r.IntN(4) {
	case 0:
		r.FinishedAt, r.NextAt = w.now, time.Time{}
	case 1:
		r.NextAt, r.Reason = time.Time{}, "parked"
	default:
		r.NextAt, r.FinishedAt = w.now.Add(time.Duration(w.r.IntN(5))*time.Second), time.Time{}
	}
	if w.r.IntN(5) == 0 { // a transition with several events
		wr.Events = append(wr.Events, event(gid, r.EventSeq+1))
		r.EventSeq++
	}
	return wr
}

func (w *workload) commit(b store.Batch) {
	w.Helper()
	lost := w.m.commit(b)
	err := persist(func() error { return w.st.Commit(w.ctx, b) })
	var conflict *store.ConflictError
	switch {
	case errors.As(err, &conflict):
		same(w.fixture, "shards lost", conflict.Shards, lost)
	case err != nil || lost != nil:
		w.Fatalf("commit: %v, the model lost %v", err, lost)
	}
	fmt.Fprintf(&w.log, "commit %d: lost %v\n", len(b.Writes), lost)
}

// persist repeats what failed by a fault, as the engine does.
func persist(op func() error) error {
	for {
		if err := op(); !errors.Is(err, ErrFault) {
			return err
		}
	}
}

func (w *workload) repeatLate() {
	if len(w.stale) == 0 {
		return
	}
	b := w.stale[w.r.IntN(len(w.stale))]
	for _, wr := range b.Writes { // a purged transaction would come back: no repeat is that late
		if _, found := w.m.rows[wr.Record.GID]; !found {
			return
		}
	}
	w.commit(b)
}

func (w *workload) moveLeases() {
	from, to := pick(w.r, w.owners...), pick(w.r, w.owners...)
	w.ok(persist(func() error { return w.st.Release(w.ctx, from) }))
	for shard, owner := range w.m.owners {
		if owner == from {
			w.m.owners[shard] = ""
		}
	}
	// A lost reply loses the leases that came with it, and nobody waits for
	// their end here: ask around the faults.
	taken, err := faultless(w.st).Acquire(w.ctx, to, time.Hour, Shards)
	w.ok(err)
	for _, l := range taken {
		if w.m.owners[l.Shard] != "" || l.Epoch <= w.m.epochs[l.Shard] {
			w.Fatalf("%s took %+v of %q, epoch %d", to, l, w.m.owners[l.Shard], w.m.epochs[l.Shard])
		}
		w.m.owners[l.Shard], w.m.epochs[l.Shard] = to, l.Epoch
	}
	if slices.Contains(w.m.owners[:], "") {
		w.Fatalf("%s did not take all that was free: %v", to, w.m.owners)
	}
	fmt.Fprintf(&w.log, "%s to %s: %v\n", from, to, taken)
}

func (w *workload) query() store.Query {
	var q store.Query
	if w.r.IntN(3) == 0 {
		q.States = []uint8{uint8(1 + w.r.IntN(4)), uint8(1 + w.r.IntN(4))}
	}
	q.Kind, q.Name = pick(w.r, "", "", "saga"), pick(w.r, "", "", "trip")
	q.Unfinished = w.r.IntN(3) == 0
	if w.r.IntN(4) == 0 {
		paused := w.r.IntN(2) == 0
		q.Paused = &paused
	}
	if w.r.IntN(3) == 0 {
		namespace := pick(w.r, "", "blue", "green")
		q.Namespace = &namespace
	}
	if w.r.IntN(4) == 0 {
		stalled := w.r.IntN(2) == 0
		q.Stalled = &stalled
	}
	q.WaitsFor = pick(w.r, "", "", "", "banks", "nobody")
	if w.r.IntN(3) == 0 {
		q.Labels = map[string]string{"tenant": pick(w.r, "1", "2", "9")}
		if w.r.IntN(2) == 0 {
			q.Labels["vip"] = "yes"
		}
	}
	ago := func() time.Time {
		if w.r.IntN(3) != 0 {
			return time.Time{}
		}
		return w.now.Add(-time.Duration(w.r.IntN(900)) * time.Second)
	}
	q.CreatedFrom, q.CreatedUntil, q.UpdatedUntil = ago(), ago(), ago()
	return q
}

func (w *workload) compareList() {
	q, size := w.query(), 1+w.r.IntN(20)
	got := pages(w.fixture, q, size, nil)
	same(w.fixture, fmt.Sprintf("list %+v by %d", q, size), got, listed(w.m.all(), q, nil, len(w.m.rows)))
	fmt.Fprintf(&w.log, "list %d\n", len(got))
}

func (w *workload) compareCount() {
	q := w.query()
	got, err := w.st.Count(w.ctx, q)
	w.ok(err)
	same(w.fixture, fmt.Sprintf("count %+v", q), got, counted(w.m.all(), q))
	fmt.Fprintf(&w.log, "count %v\n", got)
}

func (w *workload) compareDue() {
	q := store.DueQuery{Until: w.now.Add(time.Duration(w.r.IntN(9)-4) * time.Second), Limit: 1 + w.r.IntN(10)}
	for shard := range Shards {
		if w.r.IntN(3) != 0 {
			q.Shards = append(q.Shards, shard)
		}
	}
	if w.r.IntN(3) == 0 {
		q.From = w.now.Add(-time.Duration(w.r.IntN(400)) * time.Second)
	}
	if w.r.IntN(3) == 0 {
		q.AfterNext, q.AfterGID = w.now.Add(-time.Duration(w.r.IntN(400))*time.Second), w.gid()
		q.AfterShard = w.r.IntN(Shards)
	}
	got, err := w.st.Due(w.ctx, q)
	w.ok(err)
	same(w.fixture, fmt.Sprintf("due %+v", q), got, w.m.due(q))
	fmt.Fprintf(&w.log, "due %d\n", len(got))
}

func (w *workload) compareOne() {
	gid, after, limit := w.gid(), int64(w.r.IntN(6)), 1+w.r.IntN(5)
	want, found := w.m.rows[gid]
	got, err := w.st.Load(w.ctx, gid)
	if errors.Is(err, store.ErrNotFound) == found {
		w.Fatalf("load %q: %v, the model has it: %t", gid, err, found)
	}
	same(w.fixture, "record "+gid, got, want)
	events, err := w.st.Events(w.ctx, gid, after, limit)
	w.ok(err)
	same(w.fixture, "events of "+gid, events, w.m.eventsOf(gid, after, limit))
}

func (w *workload) purge() {
	before, limit := w.now.Add(-time.Duration(w.r.IntN(600))*time.Second), 1+w.r.IntN(9)
	n, err := w.st.Purge(w.ctx, before, limit)
	w.ok(err)
	same(w.fixture, "purged", n, w.m.purge(before, limit))
	fmt.Fprintf(&w.log, "purge %d\n", n)
}

// compareAll compares every row and event, and writes them down.
func (w *workload) compareAll() {
	all := w.m.all()
	slices.SortFunc(all, byCreation)
	for _, want := range all {
		got := w.load(want.GID)
		same(w.fixture, "record", got, want)
		events := w.events(want.GID)
		same(w.fixture, "events", events, w.m.eventsOf(want.GID, 0, 1000))
		fmt.Fprintf(&w.log, "%+v\n", got)
		for _, ev := range events {
			fmt.Fprintf(&w.log, "  %d %s %s %s %q %x %x\n", ev.Seq, ev.GID, ev.At, ev.Type, ev.Data, ev.Prev, ev.Hash)
		}
	}
	same(w.fixture, "number of rows", len(pages(w.fixture, store.Query{}, 1000, nil)), len(all))
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }
