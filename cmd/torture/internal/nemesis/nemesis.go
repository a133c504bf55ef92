// Package nemesis does harm to a world, by a plan that a seed draws, and puts it
// right again.
package nemesis

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/cmd/torture/internal/world"
	"github.com/amends-dev/amends/deploy/services"
)

// The faults there are.
const (
	Kill         = "kill"          // kill -9 of a process
	Stop         = "stop"          // SIGSTOP past the lease, then SIGCONT
	Cut          = "cut"           // connections closed or silent, then let through again
	Slow         = "slow"          // connections slowed
	DBRestart    = "db-restart"    // the database server, killed or stopped
	KafkaRestart = "kafka-restart" // the broker, likewise
	RedisFlush   = "redis-flush"   // every key forgotten
	Skew         = "skew"          // the wall clock of a process steps
	Term         = "term"          // SIGTERM of a coordinator
)

// All are the faults of a full attack. Term is for a rolling restart.
var All = []string{Kill, Stop, Cut, Slow, DBRestart, KafkaRestart, RedisFlush, Skew}

// Check reports faults that there are not.
func Check(kinds []string) error {
	for _, k := range kinds {
		if k != Term && !slices.Contains(All, k) {
			return fmt.Errorf("fault %q is none of %s", k, strings.Join(All, ", "))
		}
	}
	return nil
}

// Fault is something that was done.
type Fault struct {
	Kind   string        `json:"kind"`
	Target string        `json:"target"`
	How    string        `json:"how"`
	At     time.Time     `json:"at"`
	For    time.Duration `json:"for_ns"` // until it was put right
	// Shards are those that a coordinator owned when it was killed.
	Shards []int `json:"-"`
	// Code is how a process ended that was asked to.
	Code int `json:"code,omitempty"`
}

// Config says how much harm is done.
type Config struct {
	Seed  uint64
	Kinds []string
	// Every is the mean pause between the end of a fault and the next.
	Every time.Duration
	// Regular makes every pause that long, counted from fault to fault.
	Regular bool
	// Roles are the processes that are killed and stopped; empty: all.
	Roles []string
	// Most bounds the number of faults; 0: nothing does.
	Most int
	// Patience is how long a process may take to come back.
	Patience time.Duration
	// Leases is the coordinators' database.
	Leases *sql.DB
	// Say is told what happens.
	Say io.Writer
}

// Nemesis does harm.
type Nemesis struct {
	Config

	w    *world.World
	rnd  *rand.Rand
	done []Fault
	turn int // of the coordinators, for Term
}

// New returns a nemesis of a world.
func New(w *world.World, c Config) *Nemesis {
	return &Nemesis{Config: c, w: w, rnd: rand.New(rand.NewPCG(c.Seed, 666))}
}

// Faults are those that were done. Only after Run.
func (n *Nemesis) Faults() []Fault { return n.done }

// Run does harm until ctx ends, or enough was done. What it did is put right when
// it returns.
func (n *Nemesis) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.setRight()) }()
	for n.Most == 0 || len(n.done) < n.Most {
		pause := n.Every
		if !n.Regular {
			pause = n.Every/2 + time.Duration(n.rnd.Int64N(int64(n.Every)))
		}
		if n.Regular && len(n.done) > 0 {
			pause -= time.Since(n.done[len(n.done)-1].At)
		}
		if !sleep(ctx, pause) {
			return nil
		}
		f := Fault{Kind: n.Kinds[n.rnd.IntN(len(n.Kinds))], At: time.Now()}
		do := map[string]func(context.Context, *Fault) error{
			Kill: n.kill, Stop: n.stop, Cut: n.cut, Slow: n.slow, DBRestart: n.restartDB, KafkaRestart: n.restartKafka,
			RedisFlush: n.flush, Skew: n.skew, Term: n.term,
		}[f.Kind]
		if err := do(ctx, &f); err != nil {
			return fmt.Errorf("%s %s: %w", f.Kind, f.Target, err)
		}
		if f.How == "" { // there was nothing to harm
			continue
		}
		f.For = time.Since(f.At)
		n.done = append(n.done, f)
		fmt.Fprintf(n.Say, "%s  %-13s %-8s %s, %.1f s\n", f.At.UTC().Format("15:04:05.000"), f.Kind, f.Target, f.How, f.For.Seconds())
	}
	return nil
}

// victim draws a process; every other one is a coordinator.
func (n *Nemesis) victim() *world.Member {
	of := n.w.Role(world.Coordinator)
	if len(n.Roles) == 0 && n.rnd.IntN(2) == 0 {
		of = slices.DeleteFunc(slices.Clone(n.w.Members), func(m *world.Member) bool { return m.Role == world.Coordinator })
	}
	return of[n.rnd.IntN(len(of))]
}

func (n *Nemesis) kill(ctx context.Context, f *Fault) error {
	m := n.victim()
	f.Target = m.Name
	life, up := m.Up()
	if !up {
		return nil
	}
	if m.Role == world.Coordinator {
		var err error
		if f.Shards, err = world.Shards(ctx, n.Leases, m.Name); err != nil && ctx.Err() == nil {
			return err
		}
	}
	f.At = time.Now()
	if _, done := m.Kill(); !done {
		return nil
	}
	if f.How = "kill -9"; m.Role == world.Coordinator {
		f.How = fmt.Sprintf("kill -9, owned %d shards", len(f.Shards))
	}
	return n.back(ctx, m, life)
}

// back waits until a process works again.
func (n *Nemesis) back(ctx context.Context, m *world.Member, life int) error {
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.Patience)
	defer cancel()
	return m.AwaitReady(soon, life)
}

func (n *Nemesis) stop(ctx context.Context, f *Fault) error {
	m := n.victim()
	f.Target = m.Name
	if _, up := m.Up(); !up || !m.Pause() {
		return nil
	}
	d := n.w.Lease + time.Duration(n.rnd.Int64N(int64(n.w.Lease)))
	f.How = "SIGSTOP, SIGCONT"
	sleep(ctx, d)
	m.Resume() // one that has ended meanwhile is started again
	return nil
}

// link draws a connection: to the database, or to a coordinator.
func (n *Nemesis) link(f *Fault) *link {
	m := n.w.Members[n.rnd.IntN(len(n.w.Members))]
	f.Target = m.Name
	if m.Front != nil && n.rnd.IntN(2) == 0 {
		return &link{m.Front, "its clients"}
	}
	return &link{m.DB, "its database"}
}

func (n *Nemesis) cut(ctx context.Context, f *Fault) error {
	l := n.link(f)
	d := time.Duration(n.rnd.Int64N(int64(n.w.Lease) * 3 / 2))
	switch n.rnd.IntN(3) {
	case 0:
		f.How = "connections with " + l.what + " closed once"
		l.Drop()
		return nil
	case 1:
		f.How = "silence with " + l.what
		l.Freeze()
	default:
		f.How = "no connection with " + l.what
		l.Cut()
	}
	sleep(ctx, d)
	l.Mend()
	return nil
}

func (n *Nemesis) slow(ctx context.Context, f *Fault) error {
	l := n.link(f)
	d := time.Duration(5+n.rnd.IntN(60)) * time.Millisecond
	f.How = fmt.Sprintf("%v more each way with %s", d, l.what)
	l.Slow(d)
	sleep(ctx, n.w.Lease)
	l.Mend()
	return nil
}

func (n *Nemesis) restartDB(ctx context.Context, f *Fault) error {
	return n.restart(ctx, f, services.MySQL)
}

func (n *Nemesis) restartKafka(ctx context.Context, f *Fault) error {
	return n.restart(ctx, f, services.Kafka)
}

func (n *Nemesis) restart(ctx context.Context, f *Fault, s services.Service) error {
	f.Target = string(s)
	p := n.w.Own[s]
	if p == nil { // somebody else's
		return nil
	}
	away := time.Duration(n.rnd.Int64N(int64(2 * time.Second)))
	f.How = "stopped and started"
	end := p.Stop
	if s == services.MySQL && n.rnd.IntN(2) == 0 {
		f.How, end = "kill -9 and started", p.Kill
	}
	if err := end(); err != nil {
		return err
	}
	sleep(ctx, away)
	return p.Start(context.WithoutCancel(ctx))
}

func (n *Nemesis) flush(ctx context.Context, f *Fault) error {
	f.Target = string(services.Redis)
	if n.w.Own[services.Redis] == nil {
		return nil
	}
	f.How = "FLUSHALL"
	return flushRedis(ctx, n.w.Redis)
}

// term asks the coordinators in turn to end, and waits until each is back.
func (n *Nemesis) term(ctx context.Context, f *Fault) error {
	of := n.w.Role(world.Coordinator)
	m := of[n.turn%len(of)]
	n.turn++
	f.Target = m.Name
	life, up := m.Up()
	if !up {
		return nil
	}
	m.Hold()
	defer m.Release()
	f.At = time.Now()
	if _, done := m.Terminate(); !done {
		return nil
	}
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.Patience)
	defer cancel()
	code, err := m.AwaitExit(soon)
	if err != nil {
		return err
	}
	f.Code = code
	left, err := world.Shards(soon, n.Leases, m.Name)
	if err != nil {
		return err
	}
	f.How = fmt.Sprintf("SIGTERM, exit %d after %.1f s, %d leases left behind", code, time.Since(f.At).Seconds(), len(left))
	f.Shards = left
	m.Release()
	return n.back(ctx, m, life)
}
