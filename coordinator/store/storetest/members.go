package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

func memberCases() []testCase {
	return []testCase{
		{"Member/JoinAndLeave", testJoin},
		{"Member/Expiry", testMemberExpiry},
		{"Member/Names", testMemberNames},
		{"Member/Invalid", testInvalidMember},
		{"Member/AllAtOnce", testJoinAtOnce},
		{"Member/Secret", testSecret},
		{"Transfer/Gives", testTransfer},
		{"Transfer/Stale", testStaleTransfer},
		{"Transfer/LostReply", testRepeatedTransfer},
		{"Transfer/Expired", testTransferExpired},
		{"Transfer/TwoAtOnce", testTransferAtOnce},
	}
}

// join joins and checks that the member is among those returned, as it was told.
func (f *fixture) join(m store.Member, ttl time.Duration) []store.Member {
	f.Helper()
	all, err := f.st.Join(f.ctx, m, ttl)
	f.ok(err)
	i := slices.IndexFunc(all, func(o store.Member) bool { return o.Name == m.Name })
	if i < 0 {
		f.Fatalf("%q is not among %v", m.Name, all)
	}
	got := all[i]
	if left := time.Until(got.ExpiresAt); ttl >= time.Hour && (left < ttl-30*time.Minute || left > ttl+30*time.Minute) {
		f.Fatalf("%q has %v left, want about %v", m.Name, left, ttl)
	}
	got.ExpiresAt = m.ExpiresAt
	same(f, "member", got, m)
	return all
}

func names(all []store.Member) []string {
	out := make([]string, len(all))
	for i := range all {
		out[i] = all[i].Name
	}
	return out
}

func testJoin(f *fixture) {
	b := store.Member{Name: "b", Address: "10.0.0.2:7070", Version: "1.2", StartedAt: day}
	a := store.Member{Name: "a", Draining: true, StartedAt: at(5)}
	same(f, "alone", names(f.join(b, time.Hour)), []string{"b"})
	same(f, "by name", names(f.join(a, time.Hour)), []string{"a", "b"})
	b.Draining, b.Address, b.Version, b.StartedAt = true, "", "1.3", at(9)
	all := f.join(b, 3*time.Hour)
	same(f, "renewed", names(all), []string{"a", "b"})
	b.ExpiresAt = all[1].ExpiresAt

	held, err := f.st.Renew(f.ctx, "owner", time.Hour)
	f.ok(err)
	same(f, "leases beside it", len(held), Shards)
	f.ok(f.st.Leave(f.ctx, "b"))
	f.ok(f.st.Leave(f.ctx, "b"))
	f.ok(f.st.Leave(f.ctx, "nobody"))
	same(f, "after one left", names(f.join(a, time.Hour)), []string{"a"})
	same(f, "back", names(f.join(b, time.Hour)), []string{"a", "b"})
}

// testMemberExpiry: whose time has run out is gone, and may come back.
func testMemberExpiry(f *fixture) {
	short, long := store.Member{Name: "short", StartedAt: day}, store.Member{Name: "long", StartedAt: day}
	f.join(short, time.Millisecond)
	f.eventually("expiry", func() bool { return len(f.join(long, time.Hour)) == 1 })
	same(f, "back", names(f.join(short, time.Hour)), []string{"long", "short"})
	f.join(short, time.Millisecond)
	f.eventually("one that renews forgets it", func() bool { return len(f.join(long, time.Millisecond)) == 1 })
	f.join(short, 0) // itself is there, however little time it asks for
}

// testMemberNames: names are compared byte by byte.
func testMemberNames(f *fixture) {
	want := []string{"node", "Node", "node ", "nöde", "NÖDE", "no\x00de", "'; --", strings.Repeat("n", store.MaxMember)}
	for _, name := range want {
		f.join(store.Member{Name: name, Address: name, Version: name, StartedAt: day}, time.Hour)
	}
	slices.Sort(want)
	same(f, "names", names(f.join(store.Member{Name: "node", StartedAt: day}, time.Hour)), want)
	f.ok(f.st.Leave(f.ctx, "NODE"))
	f.ok(f.st.Leave(f.ctx, "node "))
	want = slices.DeleteFunc(want, func(name string) bool { return name == "node " })
	same(f, "after one left", names(f.join(store.Member{Name: "node", StartedAt: day}, time.Hour)), want)
}

func testInvalidMember(f *fixture) {
	long := strings.Repeat("n", store.MaxMember+1)
	for _, m := range []store.Member{{}, {Name: long}, {Name: "a", Address: long}, {Name: "a", Version: long}} {
		if _, err := f.st.Join(f.ctx, m, time.Hour); err == nil {
			f.Fatalf("%.20q joined", m.Name)
		}
	}
}

// testJoinAtOnce: many come, renew and find each other at the same time.
func testJoinAtOnce(f *fixture) {
	const n = 8
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		all.Go(func() {
			for range 5 {
				_, err := f.st.Join(f.ctx, store.Member{Name: fmt.Sprint("m", i), StartedAt: day}, time.Hour)
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	all.Wait()
	f.ok(errors.Join(errs...))
	same(f, "members", len(f.join(store.Member{Name: "m0", StartedAt: day}, time.Hour)), n)
}

// testSecret: it is the same for all, also for those who make it at once, and
// survives a crash.
func testSecret(f *fixture) {
	const n = 8
	var all sync.WaitGroup
	secrets, errs := make([][]byte, n), make([]error, n)
	for i := range n {
		all.Go(func() { secrets[i], errs[i] = f.st.Secret(f.ctx) })
	}
	all.Wait()
	f.ok(errors.Join(errs...))
	if len(secrets[0]) != store.SecretSize || bytes.Equal(secrets[0], make([]byte, store.SecretSize)) {
		f.Fatalf("secret %x", secrets[0])
	}
	f.crash()
	again, err := f.st.Secret(f.ctx)
	f.ok(err)
	for _, s := range secrets {
		if !bytes.Equal(s, again) {
			f.Fatalf("secrets %x and %x", s, again)
		}
	}
}

// transfer gives leases away and checks what the store says of it.
func (f *fixture) transfer(leases []store.Lease, to string, want []store.Lease) {
	f.Helper()
	given, err := f.st.Transfer(f.ctx, leases, to, time.Hour)
	f.ok(err)
	if len(given) != 0 || len(want) != 0 {
		same(f, "given to "+to, given, want)
	}
}

// some returns the leases of shards, and what they are when given away.
func (f *fixture) some(shards ...int) (held, given []store.Lease) {
	for _, s := range shards {
		l := f.leases[s]
		held = append(held, l)
		given = append(given, store.Lease{Shard: s, Epoch: l.Epoch + 1})
	}
	slices.SortFunc(given, func(a, b store.Lease) int { return a.Shard - b.Shard })
	return held, given
}

func testTransfer(f *fixture) {
	held, given := f.some(5, 1)
	f.transfer(held, "other", given)
	theirs, err := f.st.Renew(f.ctx, "other", time.Hour)
	f.ok(err)
	same(f, "renewed by the new owner", theirs, given)
	ours, err := f.st.Renew(f.ctx, "owner", time.Hour)
	f.ok(err)
	same(f, "left to the old owner", len(ours), Shards-2)
	if err := f.st.Commit(f.ctx, store.Batch{Leases: held[:1]}); !errors.Is(err, store.ErrConflict) {
		f.Fatalf("the old owner can still write: %v", err)
	}
	f.ok(f.st.Commit(f.ctx, store.Batch{Leases: given}))
	f.transfer(nil, "other", nil)
	if _, err := f.st.Transfer(f.ctx, held, "", time.Hour); err == nil {
		f.Fatal("shards were given to an owner without a name")
	}
	all, err := f.st.Leases(f.ctx)
	f.ok(err)
	if h := all[5]; h.Owner != "other" || time.Until(h.ExpiresAt) < 30*time.Minute {
		f.Fatalf("the new owner has %+v", h)
	}
}

func testStaleTransfer(f *fixture) {
	held, given := f.some(0, 1, 2, 3)
	f.transfer(held[:1], "second", given[:1])
	f.transfer(held[:1], "third", nil) // it is second's
	stale := slices.Clone(held)
	stale[1].Epoch, stale[2].Epoch = stale[1].Epoch-1, stale[2].Epoch+1
	f.transfer(append(stale, store.Lease{Shard: Shards + 3, Epoch: 1}, store.Lease{Shard: -1}), "third", given[3:])
	f.ok(f.st.Release(f.ctx, "owner"))
	f.transfer(held[1:2], "third", nil) // nobody holds it
	f.take("new", time.Hour)
	f.transfer(held[1:2], "third", nil)
	now, next := f.some(1)
	f.transfer(now, "third", next)
}

// testRepeatedTransfer: who did not hear the answer asks again.
func testRepeatedTransfer(f *fixture) {
	faults := NewFaults(f.st, nil)
	held, given := f.some(2, 4)
	faults.LoseNextReply()
	if _, err := faults.Transfer(f.ctx, held, "other", time.Hour); !errors.Is(err, ErrFault) {
		f.Fatal(err)
	}
	f.transfer(held, "other", given)
	f.transfer(held, "other", given)
	f.transfer(given[:1], "third", []store.Lease{{Shard: 2, Epoch: given[0].Epoch + 1}})
	f.transfer(held, "other", given[1:]) // the other one has moved on
}

// testTransferExpired: as long as nobody took it, it can be given away.
func testTransferExpired(f *fixture) {
	f.ok(f.st.Release(f.ctx, "owner"))
	f.take("owner", time.Nanosecond)
	held, given := f.some(6)
	f.transfer(held, "other", given)
	taken := f.take("third", time.Hour)
	same(f, "what is left to take", len(taken), Shards-1)
}

// testTransferAtOnce: of two that give the same away, one does.
func testTransferAtOnce(f *fixture) {
	held, given := f.some(0, 1, 2, 3, 4, 5, 6, 7)
	var all sync.WaitGroup
	got, errs := make([][]store.Lease, 4), make([]error, 4)
	for i := range got {
		all.Go(func() { got[i], errs[i] = f.st.Transfer(f.ctx, held, fmt.Sprint("to", i), time.Hour) })
	}
	all.Wait()
	f.ok(errors.Join(errs...))
	union := slices.Concat(got...)
	slices.SortFunc(union, func(a, b store.Lease) int { return a.Shard - b.Shard })
	same(f, "given by all", union, given)
}

// giveLeases hands random shards over, some under epochs that are long past.
func (w *workload) giveLeases() {
	to := pick(w.r, w.owners...)
	var leases, want []store.Lease
	for shard := range Shards {
		l := store.Lease{Shard: shard, Epoch: w.m.epochs[shard]}
		switch w.r.IntN(4) {
		case 0:
			w.m.owners[shard], w.m.epochs[shard] = to, l.Epoch+1
			want = append(want, store.Lease{Shard: shard, Epoch: l.Epoch + 1})
		case 1:
			l.Epoch -= 2
		default:
			continue
		}
		leases = append(leases, l)
	}
	var given []store.Lease
	w.ok(persist(func() (err error) {
		given, err = w.st.Transfer(w.ctx, leases, to, time.Hour)
		return err
	}))
	if !slices.Equal(given, want) {
		w.Fatalf("%v given to %s: got %v, want %v", leases, to, given, want)
	}
	fmt.Fprintf(&w.log, "given to %s: %v\n", to, given)
}
