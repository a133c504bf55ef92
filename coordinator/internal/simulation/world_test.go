package simulation

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
)

const (
	// horizon is when everything must have ended, in virtual time.
	horizon = 30 * time.Minute
	// slowest is how long a store that is slow takes at most.
	slowest = 6 * time.Second
)

// world is one run.
type world struct {
	*chance
	*trail
	t   *testing.T
	ctx context.Context // of the run
	end context.CancelFunc

	calm     bool // nothing goes wrong any more; guarded by mu
	perApp   int  // transactions of each application
	verbs    int  // of the operator
	refusals float64
	storm    float64 // how much more often than usually things go wrong

	store   store.Store
	banks   []*database
	inbox   *database
	log     *messageLog
	running sync.WaitGroup // all goroutines of ours

	leases sync.Mutex    // holds together what the store does and what is noted of it
	epochs map[int]int64 // the last given out, by shard

	mu        sync.Mutex
	cluster   map[string]*member
	processes map[string]*process
	facts     map[string]*fact
	gids      []string
	acted     map[string]string // gid by acknowledged request of the operator
	keys      map[string]bool   // Redis
	wrong     []string          // violations
	lasted    time.Duration     // in virtual time
}

// simulate runs one seed in a bubble and returns what it saw.
func simulate(t *testing.T, seed uint64) *world {
	w := &world{
		chance: newChance(seed), trail: newTrail(), t: t, store: memstore.New(&memstore.Config{Shards: shards}),
		perApp: 4, verbs: 8, epochs: map[int]int64{}, cluster: map[string]*member{}, processes: map[string]*process{},
		facts: map[string]*fact{}, acted: map[string]string{}, keys: map[string]bool{},
	}
	w.refusals = []float64{0, 0.1, 0.3}[w.pick(3, "refusals")]
	w.storm = []float64{0.5, 1, 2, 4}[w.pick(4, "storm")]
	w.ctx, w.end = context.WithCancel(context.Background())
	w.build()
	w.play()
	w.finish()
	w.end()
	w.running.Wait()
	w.check()
	for _, d := range append(w.banks, w.inbox) {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
	return w
}

// build starts every part of the system.
func (w *world) build() {
	w.log = &messageLog{w: w}
	for _, s := range services {
		w.banks = append(w.banks, w.newBank(s))
	}
	w.inbox = w.newBank("inbox")
	if _, err := w.inbox.anchor.Exec(`CREATE TABLE handled (n INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT, msg TEXT)`); err != nil {
		w.t.Fatal(err)
	}
	for i := range members {
		w.keepMember(w.memberName(i))
	}
	for i, s := range services {
		for k := range 2 {
			w.keepTeller(s, w.banks[i], k)
		}
	}
	w.keepRelay(w.banks[0])
	for i := range w.log.owner { // before any of them looks
		w.log.owner[i] = fmt.Sprintf("consumer%d", i)
	}
	for _, name := range w.log.owner {
		w.keepConsumer(name, w.inbox)
	}
}

// play lets the applications and the operator work, with trouble, and then all
// come to its end, without.
func (w *world) play() {
	var busy sync.WaitGroup
	for i := range 3 {
		busy.Go(func() { w.application(i) })
	}
	busy.Go(w.operator)
	busy.Go(w.trouble)
	busy.Wait()
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	w.say("world", "calm")
	rest := time.Now()
	for round := 0; ; round++ {
		w.sleep(2 * time.Second)
		if !w.tidy(round) || !w.delivered() {
			rest = time.Now()
		}
		if time.Since(rest) > slowest { // a commit that was slow in the last moment shows by then
			return
		}
		if time.Since(w.began) > horizon {
			w.unfinished()
			return
		}
	}
}

// rough is whether a fault happens.
func (w *world) rough(p float64, words ...any) bool {
	w.mu.Lock()
	calm := w.calm
	w.mu.Unlock()
	return !calm && w.happens(p*w.storm, words...)
}

// trouble does what does not come from a call.
func (w *world) trouble() {
	names := []string{"m0", "m1", "m2", "m0", "m1", "m2", "left0", "left1", "right0", "right1", "relay", "consumer0", "consumer1"}
	for i := range 2 + w.pick(10, "troubles") {
		w.sleep(w.upTo(8*time.Second, "trouble", i))
		w.mu.Lock()
		p := w.processes[names[w.pick(len(names), "whom", i)]]
		w.mu.Unlock()
		switch w.pick(6, "what", i) {
		case 0, 1:
			p.freeze(w.between(time.Second, 15*time.Second, "freeze", i))
		case 2:
			p.kill("for no reason")
		case 3:
			w.say(p.id, "is asked to end")
			p.end()
		case 4:
			w.log.rebalance(w.pick(logPartitions, "part", i), fmt.Sprintf("consumer%d", w.pick(logPartitions, "to", i)))
		case 5:
			w.mu.Lock()
			clear(w.keys)
			w.mu.Unlock()
			w.fault("redis flushed", "redis", "it forgets everything")
		}
	}
}

// violation is what must not be. The first one is the one to look at.
func (w *world) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.trail.mu.Lock()
	defer w.trail.mu.Unlock()
	w.add("VIOLATION", text)
	w.wrong = append(w.wrong, text)
}

// records are all transactions, oldest first.
func (w *world) records() []store.Record {
	all, err := w.store.List(context.Background(), store.Query{OldestFirst: true}, nil, 1000)
	if err != nil {
		w.violation("the store cannot be read: %v", err)
	}
	return all
}
