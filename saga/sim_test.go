package saga_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// TestSimulation runs random sagas against participants behind a guard, over a
// bus that loses, repeats, delays and reorders. AMENDS_SIM_N says how many
// (20,000), AMENDS_SIM_SEED where to begin (alone: just that one, with its
// trail).
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
			t.Fatalf("seed %d (the %d. run): %v\nrepeat: AMENDS_SIM_SEED=%d go test -v -run 'TestSimulation$' ./saga",
				seed, seed-first+1, err, seed)
		}
		ends[s.ending()]++
		for what, n := range s.acted {
			acted[what] += n
		}
	}
	t.Logf("%d sagas ended: %v\noperators: %v", n, ends, acted)
	if n < 20_000 {
		return
	}
	for _, end := range []string{"COMMITTED", "COMMITTED after a fence", "ROLLED_BACK", "PARKED onward", "PARKED back", "ABANDONED"} {
		if ends[end] < int(n)/1000 {
			t.Errorf("only %d of %d sagas ended %s: the simulation no longer covers it", ends[end], n, end)
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

// sim is one random saga with its coordinator, its bus and its participants.
type sim struct {
	rnd      *rand.Rand
	def      *saga.Definition
	before   [][]bool // before[i][j]: step i comes after step j, transitively
	state    saga.State
	asked    map[question]bool // what this incarnation of the coordinator has sent
	bus      []message
	rooms    []room
	operator int             // how often an operator still acts
	acted    map[string]int  // what operators did, by verb and by what it was about
	storm    bool            // faults happen
	reasons  map[string]bool // codes of the reasons to turn back that arose
	fenced   bool            // went forward again from a fence
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
		rnd: rand.New(rand.NewPCG(seed, 42)), verbose: verbose, storm: true,
		asked: make(map[question]bool), reasons: make(map[string]bool), acted: make(map[string]int),
	}
	s.def = randomDefinition(s.rnd)
	s.before = closure(s.def)
	s.rooms = make([]room, len(s.def.Steps))
	for i := range s.rooms {
		s.rooms[i] = newRoom(s.rnd)
	}
	if s.rnd.IntN(2) == 0 {
		s.operator = 1 + s.rnd.IntN(8)
	}
	for i, st := range s.def.Steps {
		s.log("step %d: %s after %v, attempts %d, %+v", i, st.Kind, st.After, st.Retry.Attempts, s.rooms[i])
	}
	return s
}

func (s *sim) run() error {
	if err := s.def.Validate(); err != nil {
		return err
	}
	s.state = saga.New(s.def)
	if err := s.state.Check(s.def); err != nil {
		return err
	}
	storm := s.rnd.IntN(80)
	for tick := 0; ; tick++ {
		s.storm = tick < storm
		if len(s.state.Outstanding(s.def)) == 0 {
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
				s.state.Phase, tick, len(s.state.Outstanding(s.def)))
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
	if s.storm {
		switch s.rnd.IntN(40) {
		case 0:
			return s.abort()
		case 1, 2:
			return s.crash()
		case 3, 4, 5:
			return s.timeout()
		}
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
	for _, c := range s.state.Outstanding(s.def) {
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
		return true, s.checkCall(&c)
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
	calls := s.state.Outstanding(s.def)
	c := calls[s.rnd.IntN(len(calls))]
	return s.advance(txn.Replied{
		Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.Unknown, Message: "no answer"})
}

func (s *sim) abort() error {
	code := []string{txn.CodeAborted, txn.CodeDeadline}[s.rnd.IntN(2)]
	s.reasons[code] = true
	return s.advance(txn.Abort{Reason: txn.Reason{Code: code, Message: "at random"}})
}

// crash loses what the coordinator knows, but for what it stored.
func (s *sim) crash() error {
	data, err := s.state.Encode()
	if err != nil {
		return err
	}
	state, err := saga.DecodeState(s.def, data)
	if err != nil {
		return err
	}
	if was, is := s.state.Outstanding(s.def), state.Outstanding(s.def); !reflect.DeepEqual(was, is) {
		return fmt.Errorf("outstanding before the crash: %+v\nand after: %+v", was, is)
	}
	s.log("crash")
	s.state, s.asked = state, make(map[question]bool)
	return nil
}

func (s *sim) advance(ev txn.Event) error {
	was := s.state
	next, err := was.Advance(s.def, ev)
	if err != nil {
		return err
	}
	if s.verbose { // it is dear
		s.log("%s\n    %s", describeEvent(ev), describeState(s.def, next))
	}
	if err := s.checkUnchanged(was, ev, next); err != nil {
		return err
	}
	s.state = next
	s.learn(was, ev)
	return s.checkTransition(was, next)
}

// checkUnchanged: asking an old state again gives the same answer. That is
// dear, so it is done now and then.
func (s *sim) checkUnchanged(was saga.State, ev txn.Event, next saga.State) error {
	if s.advances++; s.advances%8 != 0 {
		return nil
	}
	again, err := was.Advance(s.def, ev)
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

func (s *sim) ending() string {
	switch {
	case s.state.Phase == txn.Committed && s.fenced:
		return "COMMITTED after a fence"
	case s.state.Phase == txn.Parked && s.onward():
		return "PARKED onward"
	case s.state.Phase == txn.Parked:
		return "PARKED back"
	}
	return s.state.Phase.String()
}

func (s *sim) log(format string, args ...any) {
	if s.verbose {
		fmt.Fprintf(&s.trail, format+"\n", args...)
	}
}
