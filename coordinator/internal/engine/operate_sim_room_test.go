package engine

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// sim is the world of TestOperatorSimulation, and what is known of it.
type sim struct {
	t     *testing.T
	rnd   *rand.Rand // for forks, before goroutines begin and after they ended
	st    *memstore.Store
	gids  []string
	bulks []Bulk
	calls sync.WaitGroup
	well  atomic.Bool // nothing goes wrong any more

	mu     sync.Mutex
	nodes  []*simNode
	held   map[string]ack  // paused or ended, by gid
	sent   map[string]bool // requests that may have been carried out
	acked  map[string]bool // and those that were
	denied map[string]bool // requests that were not, and never will be
	acted  map[string]int64
	works  map[string]*simWork // of two-phase messages, by gid
}

// ack is when a coordinator acknowledged that no call goes out any more.
type ack struct {
	by *simNode
	at time.Time
}

func newSim(t *testing.T, seed uint64) *sim {
	return &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), st: memstore.New(&memstore.Config{Shards: 4}),
		held: map[string]ack{}, sent: map[string]bool{}, acked: map[string]bool{},
		denied: map[string]bool{}, acted: map[string]int64{},
		works: map[string]*simWork{}}
}

func (s *sim) fork() *rand.Rand { return rand.New(rand.NewPCG(s.rnd.Uint64(), 8)) }

// simStore is one coordinator's way to the store.
type simStore struct {
	store.Store
	s       *sim
	cut     atomic.Bool // the coordinator is dead
	mute    atomic.Bool // it is cut off from what is said about leases
	commits atomic.Int64
}

func (f *simStore) through(call func() error) error {
	if f.cut.Load() {
		return store.ErrClosed
	}
	return call()
}

func (f *simStore) Commit(ctx context.Context, b store.Batch) error {
	time.Sleep(time.Duration(f.commits.Add(7)%20) * time.Millisecond)
	return f.through(func() error { return f.Store.Commit(ctx, b) })
}

func (f *simStore) aboutLeases(call func() error) error {
	if f.mute.Load() {
		return errLost
	}
	return f.through(call)
}

func (f *simStore) Renew(ctx context.Context, owner string, ttl time.Duration) (l []store.Lease, err error) {
	err = f.aboutLeases(func() error { l, err = f.Store.Renew(ctx, owner, ttl); return err })
	return l, err
}

func (f *simStore) Acquire(ctx context.Context, owner string, ttl time.Duration, n int) (l []store.Lease, err error) {
	err = f.aboutLeases(func() error { l, err = f.Store.Acquire(ctx, owner, ttl, n); return err })
	return l, err
}

func (f *simStore) Leases(ctx context.Context) (all []store.Holding, err error) {
	err = f.aboutLeases(func() error { all, err = f.Store.Leases(ctx); return err })
	return all, err
}

func (f *simStore) Join(ctx context.Context, m store.Member, ttl time.Duration) (all []store.Member, err error) {
	err = f.aboutLeases(func() error { all, err = f.Store.Join(ctx, m, ttl); return err })
	return all, err
}

func (f *simStore) Transfer(ctx context.Context, leases []store.Lease, to string, ttl time.Duration) (l []store.Lease, err error) {
	err = f.aboutLeases(func() error { l, err = f.Store.Transfer(ctx, leases, to, ttl); return err })
	return l, err
}

func (f *simStore) Leave(ctx context.Context, name string) error {
	return f.through(func() error { return f.Store.Leave(ctx, name) })
}

func (f *simStore) Release(ctx context.Context, owner string) error {
	return f.through(func() error { return f.Store.Release(ctx, owner) })
}

// simNode is a coordinator, and the dispatcher with its participants.
type simNode struct {
	*Engine
	s    *sim
	st   *simStore
	stop context.CancelFunc
	done chan error

	mu      sync.Mutex
	r       *rand.Rand
	waiting []*simCall
}

type simCall struct {
	dispatch.Call
	since time.Time
}

func (s *sim) launch(n int) {
	for range n {
		faults := storetest.NewFaults(s.st.Reopen(), &storetest.FaultConfig{
			Seed: s.rnd.Uint64(), LoseRequests: 0.03, LoseReplies: 0.03, Repeat: 0.05})
		node := &simNode{s: s, st: &simStore{Store: faults, s: s}, done: make(chan error, 1), r: s.fork()}
		e, err := New(s.t.Context(), node.st, &Config{Logger: slog.New(slog.DiscardHandler), StallAfter: 20 * time.Second,
			Address: "here", Remote: s.remote, Retention: -1, Observers: []func(store.Record, []store.Event){s.observe}})
		if err != nil {
			s.t.Fatal(err)
		}
		node.Engine = e
		e.SetDispatcher(node)
		ctx, cancel := context.WithCancel(context.Background())
		node.stop = cancel
		go func() { node.done <- e.Run(ctx) }()
		s.mu.Lock()
		s.nodes = append(s.nodes, node)
		s.mu.Unlock()
	}
}

// observe sees that whatever can move by itself is due some time.
func (s *sim) observe(rec store.Record, _ []store.Event) {
	state := txn.State(rec.State)
	moves := !state.Finished() && !rec.Paused
	if moves && state != txn.Parked && rec.NextAt.IsZero() || !moves && !rec.NextAt.IsZero() {
		s.t.Errorf("%q is %v, paused %v, and due at %v", rec.GID, state, rec.Paused, rec.NextAt)
	}
}

// remote is how bulks reach transactions of other coordinators.
func (s *sim) remote(ctx context.Context, owner store.Member, c Command) error {
	s.mu.Lock()
	nodes := slices.Clone(s.nodes)
	s.mu.Unlock()
	for _, n := range nodes {
		if n.Name() == owner.Name {
			_, err := n.Act(ctx, c)
			return err
		}
	}
	return amendsv1.ErrUnavailable.With("nobody is there")
}

func (s *sim) any(r *rand.Rand) *simNode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[r.IntN(len(s.nodes))]
}

// trouble kills coordinators and takes their leases away.
func (s *sim) trouble(r *rand.Rand) {
	for range r.IntN(4) {
		sleepUpTo(r, time.Minute)
		n := s.any(r)
		switch r.IntN(3) {
		case 0:
			s.remove(n, true)
		case 1:
			s.remove(n, false)
		default:
			n.st.mute.Store(true)
			sleepUpTo(r, 40*time.Second)
			n.st.mute.Store(false)
		}
	}
}

// remove replaces a coordinator, after a crash or gently.
func (s *sim) remove(n *simNode, crash bool) {
	n.st.cut.Store(crash)
	n.end()
	s.mu.Lock()
	for i := range s.nodes {
		if s.nodes[i] == n {
			s.nodes = append(s.nodes[:i:i], s.nodes[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	s.launch(1)
}

func (n *simNode) end() {
	n.stop()
	<-n.done
	n.mu.Lock()
	n.waiting = nil
	n.mu.Unlock()
}

func (s *sim) end() {
	for _, n := range s.nodes {
		n.end()
	}
	s.calls.Wait()
}

func (s *sim) calm() { s.well.Store(true) }

// Send lets calls wait for a while, then hands each to its participant.
func (n *simNode) Send(calls ...dispatch.Call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range calls {
		call := &simCall{Call: c, since: time.Now()}
		n.waiting = append(n.waiting, call)
		wait := time.Duration(0)
		if !n.s.well.Load() && n.r.IntN(2) == 0 {
			wait = time.Duration(n.r.Int64N(int64([]time.Duration{time.Second, 30 * time.Second}[n.r.IntN(2)])))
		}
		r := rand.New(rand.NewPCG(n.r.Uint64(), 9))
		n.s.calls.Go(func() {
			time.Sleep(wait)
			if n.goesOut(call) {
				n.participant(r, c)
			}
		})
	}
}

// Withdraw takes back what still waits.
func (n *simNode) Withdraw(gid string) (back []dispatch.Call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var rest []*simCall
	for _, c := range n.waiting {
		if c.GID == gid {
			back = append(back, c.Call)
		} else {
			rest = append(rest, c)
		}
	}
	n.waiting = rest
	return back
}

// goesOut reports whether a call was not taken back. Then it must be wanted.
func (n *simNode) goesOut(c *simCall) bool {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.waiting {
		if n.waiting[i] != c {
			continue
		}
		n.waiting = append(n.waiting[:i:i], n.waiting[i+1:]...)
		if a, held := n.s.held[c.GID]; held && (a.by == n || c.since.After(a.at)) {
			n.s.t.Errorf("%q: %v of %s goes out at %v, sent at %v, but it was paused or ended at %v",
				c.GID, c.Op, c.Name, time.Now(), c.since, a.at)
		}
		return true
	}
	return false
}

// participant answers a call in its own way.
func (n *simNode) participant(r *rand.Rand, c dispatch.Call) {
	say := func(o txn.Outcome) {
		n.Outcome(dispatch.Outcome{GID: c.GID, Recorded: c.Branch != 1, Replied: txn.Replied{
			Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: o, Message: "so it is", Reply: []byte(`1`)}})
	}
	if c.Op == txn.Check {
		n.s.answerCheck(r, c, say)
		return
	}
	if n.s.well.Load() {
		say(txn.OK)
		return
	}
	sleepUpTo(r, 3*time.Second)
	switch k := r.IntN(20); {
	case k < 9:
		say(txn.OK)
	case k < 11:
		say(txn.OK)
		sleepUpTo(r, 10*time.Second)
		say(txn.OK)
	case k < 13:
		say(txn.Refused)
	case k < 17:
		say(txn.Unknown)
	default: // the dispatcher gives up waiting, then the answer comes
		time.Sleep(10 * time.Second)
		say(txn.Unknown)
		sleepUpTo(r, time.Minute)
		say([]txn.Outcome{txn.OK, txn.Refused}[r.IntN(2)])
	}
}
