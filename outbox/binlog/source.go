package binlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/outbox"
)

const (
	retryMin = 200 * time.Millisecond // between two connections
	retryMax = 5 * time.Second
	recheck  = 30 * time.Second // of a server that is not configured for it, in ModeTable
	sayAgain = time.Minute      // an error that lasts is logged again
)

// Source reads the log for one relay. It implements outbox.Source.
type Source struct {
	cfg Config

	mu      sync.Mutex
	streams map[*stream]bool
	reading bool          // a session is under way
	opened  chan struct{} // receives when ModeLog has a new stream
	stats   counters
}

type counters struct {
	sessions, transactions, rows, alarms, lost atomic.Uint64
	behind, left                               atomic.Int64
}

// Stats are a Source's figures since it was made.
type Stats struct {
	Reading      bool          // the log is being read
	Sessions     uint64        // times reading began
	Transactions uint64        // read, of any table
	Rows         uint64        // read, of the outbox's tables
	Alarms       uint64        // checks that found the log to end soon before what is needed
	Lost         uint64        // times what was needed had been purged; in ModeTable nothing is lost by that
	Behind       time.Duration // age of the first transaction that is needed; ModeLog
	Left         time.Duration // until the server may delete it, by its settings; 0 when it never does; ModeLog
}

// New makes a source. It connects to nothing: Run does, which the relay calls.
// Mistakes in cfg are outbox.ErrConfig, all at once.
func New(cfg Config) (*Source, error) {
	cfg.fill()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Source{cfg: cfg, streams: map[*stream]bool{}, opened: make(chan struct{}, 1)}, nil
}

// Mode implements outbox.Source.
func (s *Source) Mode() outbox.SourceMode {
	if s.cfg.Mode == ModeLog {
		return outbox.SourceLog
	}
	return outbox.SourceTable
}

// Stats is a snapshot. Safe for concurrent use.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	reading := s.reading
	s.mu.Unlock()
	return Stats{
		Reading: reading, Sessions: s.stats.sessions.Load(), Transactions: s.stats.transactions.Load(),
		Rows: s.stats.rows.Load(), Alarms: s.stats.alarms.Load(), Lost: s.stats.lost.Load(),
		Behind: time.Duration(s.stats.behind.Load()), Left: time.Duration(s.stats.left.Load()),
	}
}

// Open implements outbox.Source.
func (s *Source) Open(part int, from string, wake func()) (outbox.SourceStream, error) {
	st := &stream{s: s, part: part, wake: wake, room: make(chan struct{}, 1)}
	if s.cfg.Mode == ModeLog {
		p, err := parsePosition(from)
		if err != nil {
			return nil, err
		}
		st.read, st.settled = p, p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Mode == ModeTable && !s.reading {
		return nil, errDown
	}
	s.streams[st] = true
	if s.cfg.Mode == ModeLog {
		select {
		case s.opened <- struct{}{}:
		default: // the session is about to begin anew already
		}
	}
	return st, nil
}

func (s *Source) forget(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
}

// all is a copy of the streams there are.
func (s *Source) all() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*stream, 0, len(s.streams))
	for st := range s.streams {
		out = append(out, st)
	}
	return out
}

// setReading tells Open whether there is a session. The end of one ends the
// streams of ModeTable, whose order would have a hole; those of ModeLog go on
// with the next session where they are.
func (s *Source) setReading(on bool, why error) {
	s.mu.Lock()
	s.reading = on
	s.mu.Unlock()
	if on || s.cfg.Mode == ModeLog {
		return
	}
	for _, st := range s.all() {
		st.fail(why)
		s.forget(st)
	}
}

// Run implements outbox.Source.
func (s *Source) Run(ctx context.Context, identity string) error {
	wait, said, saidAt := retryMin, "", time.Time{}
	for ctx.Err() == nil {
		before := s.stats.sessions.Load()
		err := s.session(ctx, identity)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errReopen), errors.Is(err, errDefinition):
			continue // it has moved on meanwhile
		case errors.Is(err, outbox.ErrConfig) && s.cfg.Mode == ModeLog:
			return err
		}
		if s.stats.sessions.Load() > before { // it was read for a while
			wait = retryMin
		}
		if text := err.Error(); text != said || time.Since(saidAt) > sayAgain {
			said, saidAt = text, time.Now()
			s.cfg.Logger.Error("outbox: binlog: cannot be read: trying again", "addr", s.cfg.Addr,
				"meanwhile", s.meanwhile(), "error", text) // the library's errors would print their stacks
		}
		if errors.Is(err, outbox.ErrConfig) {
			wait = recheck
		}
		pause(ctx, wait)
		wait = min(2*wait, retryMax)
	}
	return nil
}

func (s *Source) meanwhile() string {
	if s.cfg.Mode == ModeLog {
		return "messages wait in the log"
	}
	return "the relay polls the tables"
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// start is where a session begins: in ModeTable at the end of the log, in ModeLog
// at the first position that a stream needs.
func (s *Source) start(ctx context.Context, srv *server) (position, error) {
	if s.cfg.Mode == ModeTable {
		return srv.end()
	}
	for {
		select { // what is open now is seen below
		case <-s.opened:
		default:
		}
		var froms []position
		for _, st := range s.all() {
			st.mu.Lock()
			if st.begun && st.err == nil {
				st.err = errDown // the rest of its last transaction cannot be had alone
				st.wake()
			}
			if st.err == nil {
				st.joined, st.aligned = true, false
				froms = append(froms, st.read)
			}
			st.mu.Unlock()
		}
		if len(froms) > 0 {
			p := earliest(froms).clone()
			if p.flavor != srv.flavor {
				return position{}, fmt.Errorf("%w: binlog: the checkpoint is of flavour %q, the server of %q: "+
					"convert the tables again", outbox.ErrConfig, p.flavor, srv.flavor)
			}
			return p, nil
		}
		select {
		case <-s.opened:
		case <-ctx.Done():
			return position{}, ctx.Err()
		}
		pause(ctx, reopenPause) // for the other partitions
	}
}
