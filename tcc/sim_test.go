package tcc_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestSimulation runs random transactions against participants behind a guard,
// over a bus that loses, repeats, delays and reorders. AMENDS_SIM_N says how
// many (20,000), AMENDS_SIM_SEED where to begin (alone: just that one, with
// its trail).
func TestSimulation(t *testing.T) {
	first, n := uint64(1), uint64(20_000)
	alone := false
	if v := os.Getenv("AMENDS_SIM_SEED"); v != "" {
		first, n, alone = number(t, v), 1, true
	}
	if v := os.Getenv("AMENDS_SIM_N"); v != "" {
		n, alone = number(t, v), false
	}
	ends, acted := make(map[string]int), make(map[string]int)
	for seed := first; seed < first+n; seed++ {
		s := newSim(seed, alone)
		err := s.run()
		if err != nil && !alone {
			s = newSim(seed, true) // once more, with a trail
			err = s.run()
		}
		if alone || err != nil {
			t.Logf("seed %d:\n%s", seed, s.trail.String())
		}
		if err != nil {
			t.Fatalf("seed %d (the %d. run): %v\nrepeat: AMENDS_SIM_SEED=%d go test -v -run 'TestSimulation$' ./tcc",
				seed, seed-first+1, err, seed)
		}
		ends[fmt.Sprintf("%s by %s", s.state.Phase, s.state.Decision)]++
		for what, n := range s.acted {
			acted[what] += n
		}
	}
	t.Logf("%d transactions ended: %v\noperators: %v", n, ends, acted)
	if n < 20_000 {
		return
	}
	for _, what := range []string{"committed by the check", "rolled back by the check", "committed while checked",
		"aborted while checked", "complete"} {
		if acted[what] < int(n)/1000 {
			t.Errorf("only %d of %d transactions were %s: the simulation no longer covers it", acted[what], n, what)
		}
	}
	for _, end := range []string{"COMMITTED by COMMITTING", "ROLLED_BACK by ROLLING_BACK",
		"PARKED by COMMITTING", "PARKED by ROLLING_BACK", "ABANDONED by STATE(0)",
		"ABANDONED by COMMITTING", "ABANDONED by ROLLING_BACK"} {
		if ends[end] < int(n)/1000 {
			t.Errorf("only %d of %d transactions ended %s: the simulation no longer covers it", ends[end], n, end)
		}
	}
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("AMENDS_SIM_N or AMENDS_SIM_SEED: %v", err)
	}
	return n
}

// simDef has a check, which nothing asks before an Expire.
var simDef = &tcc.Definition{Name: "sim", Timeout: time.Minute, Check: tcc.CheckBack{Action: "app.check"}}

// sim is one random transaction with its application, its coordinator, its bus
// and its participants.
type sim struct {
	rnd      *rand.Rand
	state    tcc.State
	wanted   []tcc.Branch      // what the application still wants to try
	asked    map[question]bool // what this incarnation of the coordinator has sent
	bus      []message
	rooms    []room         // by branch
	operator int            // how often an operator still acts
	acted    map[string]int // what operators did, by verb and by what it was about
	storm    bool           // faults happen
	commits  bool           // the application commits in the end
	work     work           // what it does by itself
	advances int
	verbose  bool
	trail    strings.Builder
}

type question struct {
	branch  int
	op      txn.Op
	attempt int
}

// message is a call on its way to a participant or a reply on its way back.
type message struct {
	call  *txn.Call
	reply txn.Replied
}

func newSim(seed uint64, verbose bool) *sim {
	s := &sim{
		rnd: rand.New(rand.NewPCG(seed, 43)), verbose: verbose, storm: true,
		asked: make(map[question]bool), state: tcc.New(simDef), acted: make(map[string]int),
	}
	if s.rnd.IntN(2) == 0 {
		s.operator = 1 + s.rnd.IntN(8)
	}
	s.commits = s.rnd.IntN(5) > 0
	s.work = newWork(s.rnd)
	for i := range s.rnd.IntN(6) {
		b := tcc.Branch{Name: fmt.Sprintf("b%d", i), Action: fmt.Sprintf("svc%d.act", i%3), Payload: []byte{byte(i)}}
		if s.rnd.IntN(3) == 0 {
			b.Retry.Attempts = 1 + s.rnd.IntN(3)
		}
		s.wanted = append(s.wanted, b)
		s.rooms = append(s.rooms, newRoom(s.rnd))
		s.log("branch %d: attempts %d, %+v", i, b.Retry.Attempts, s.rooms[i])
	}
	return s
}

func (s *sim) run() error {
	storm := s.rnd.IntN(80)
	for tick := 0; ; tick++ {
		s.storm = tick < storm
		if s.state.Phase != txn.Running && len(s.state.Outstanding(simDef)) == 0 { // ended or parked
			if !s.unpark() {
				break
			}
			if err := s.operate(); err != nil {
				return err
			}
			continue
		}
		if tick > storm+5000 {
			return fmt.Errorf("no progress: still %s after %d ticks, waiting for %d calls",
				s.state.Phase, tick, len(s.state.Outstanding(simDef)))
		}
		if err := s.tick(); err != nil {
			return err
		}
	}
	if err := s.checkEnd(); err != nil {
		return err
	}
	return s.drain()
}

// tick lets one thing happen.
func (s *sim) tick() error {
	if s.operator > 0 && s.rnd.IntN(12) == 0 {
		return s.operate()
	}
	if s.work.own && s.state.Phase == txn.Running && s.rnd.IntN(20) == 0 {
		return s.expire()
	}
	if s.storm {
		switch s.rnd.IntN(40) {
		case 0:
			if s.work.own {
				return s.expire()
			}
			return s.abort()
		case 1, 2:
			return s.crash()
		case 3, 4, 5:
			return s.timeout()
		case 6:
			if s.work.own && s.state.Phase == txn.Running {
				return s.apply()
			} else if s.work.own {
				return s.twoPhase()
			}
			return s.commit()
		case 7:
			return s.tryTooLate()
		}
	}
	if s.state.Phase == txn.Running && s.rnd.IntN(4) == 0 {
		return s.apply()
	}
	if s.rnd.IntN(2) == 0 || len(s.bus) == 0 {
		sent, err := s.dispatch()
		if err != nil || sent {
			return err
		}
	}
	if len(s.bus) > 0 {
		return s.deliver()
	}
	return s.timeout() // everything was sent and nothing comes: it was lost
}

// dispatch sends one call that is outstanding and was not sent.
func (s *sim) dispatch() (bool, error) {
	for _, c := range s.state.Outstanding(simDef) {
		q := question{c.Branch, c.Op, c.Attempt}
		if s.asked[q] {
			continue
		}
		s.asked[q] = true
		copies := 1
		if s.storm {
			copies = []int{0, 1, 1, 1, 1, 1, 2, 3}[s.rnd.IntN(8)]
		}
		s.log("send %s %s #%d ×%d", c.Op, c.Name, c.Attempt, copies)
		for range copies {
			s.bus = append(s.bus, message{call: &c})
		}
		if c.Op == txn.Check {
			s.acted["check asked"]++
		}
		if limit := c.Retry.Attempts; c.Op == txn.Try && limit > 0 && c.Attempt > limit {
			return true, fmt.Errorf("branch %d is tried a %d. time, %d are allowed", c.Branch, c.Attempt, limit)
		}
		return true, nil
	}
	return false, nil
}

// deliver takes a random message off the bus.
func (s *sim) deliver() error {
	i := s.rnd.IntN(len(s.bus))
	m := s.bus[i]
	if !s.storm || s.rnd.IntN(8) > 0 { // otherwise it comes again
		s.bus = append(s.bus[:i], s.bus[i+1:]...)
	}
	if m.call == nil {
		return s.advance(m.reply)
	}
	reply, err := s.handle(m.call)
	if err != nil {
		return err
	}
	if !s.storm || s.rnd.IntN(8) > 0 { // otherwise it is lost
		s.bus = append(s.bus, message{reply: reply})
	}
	return nil
}

func (s *sim) timeout() error {
	calls := s.state.Outstanding(simDef)
	if len(calls) == 0 {
		return nil
	}
	c := calls[s.rnd.IntN(len(calls))]
	return s.advance(txn.Replied{
		Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.Unknown, Message: "no answer"})
}

// crash loses what the coordinator knows, but for what it stored.
func (s *sim) crash() error {
	data, err := s.state.Encode()
	if err != nil {
		return err
	}
	state, err := tcc.DecodeState(simDef, data)
	if err != nil {
		return err
	}
	if was, is := s.state.Outstanding(simDef), state.Outstanding(simDef); !reflect.DeepEqual(was, is) {
		return fmt.Errorf("outstanding before the crash: %+v\nand after: %+v", was, is)
	}
	s.log("crash")
	s.state, s.asked = state, make(map[question]bool)
	return nil
}

func (s *sim) advance(ev txn.Event) error {
	was := s.state
	next, err := was.Advance(simDef, ev)
	if err != nil {
		return err
	}
	if s.verbose { // it is dear
		s.log("%s\n    %s", describeEvent(ev), describeState(next))
	}
	if err := s.checkUnchanged(was, ev, next); err != nil {
		return err
	}
	s.state = next
	if r, ok := ev.(txn.Replied); ok && r.Op == txn.Check && was.Phase != next.Phase {
		s.acted[map[txn.State]string{txn.Committing: "committed", txn.RollingBack: "rolled back"}[next.Decision]+" by the check"]++
	}
	return s.checkTransition(was, next)
}

// checkUnchanged: asking an old state again gives the same answer. That is
// dear, so it is done now and then.
func (s *sim) checkUnchanged(was tcc.State, ev txn.Event, next tcc.State) error {
	if s.advances++; s.advances%8 != 0 {
		return nil
	}
	again, err := was.Advance(simDef, ev)
	if err != nil || !reflect.DeepEqual(again, next) {
		return fmt.Errorf("advance changed the state that it was called on: %+v\nthen %+v (%w)", next, again, err)
	}
	return nil
}

// drain delivers what is still on the bus: none of it may change anything.
func (s *sim) drain() error {
	s.storm = false
	end, err := s.state.Encode()
	if err != nil {
		return err
	}
	for len(s.bus) > 0 {
		if err := s.deliver(); err != nil {
			return err
		}
	}
	if now, err := s.state.Encode(); err != nil || !bytes.Equal(end, now) {
		return fmt.Errorf("a late message changed the end (%w):\n%s\n%s", err, end, now)
	}
	if err := s.checkEnd(); err != nil {
		return fmt.Errorf("after the last late message: %w", err)
	}
	return s.crash()
}

func (s *sim) log(format string, args ...any) {
	if s.verbose {
		fmt.Fprintf(&s.trail, format+"\n", args...)
	}
}
