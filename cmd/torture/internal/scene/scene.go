// Package scene puts worlds, clients and nemeses together, and reports what came
// of it.
package scene

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
	"github.com/amends-dev/amends/cmd/torture/internal/check"
	"github.com/amends-dev/amends/cmd/torture/internal/load"
	"github.com/amends-dev/amends/cmd/torture/internal/nemesis"
	"github.com/amends-dev/amends/cmd/torture/internal/world"
	"github.com/amends-dev/amends/deploy/services"
)

// Config is an attack.
type Config struct {
	Name    string // of the scene, for the report
	Amends  string // the program of coordinators and relays
	Self    string // this program
	Other   string // another build of Amends, for the first coordinator; empty: none
	Servers map[services.Service]string
	Dial    bank.Dial
	Out     io.Writer
	Keep    bool // the data directory stays, whatever comes
	Strict  bool // a client's request that fails is a violation

	Seed     uint64
	For      time.Duration // how long clients work and faults strike
	Rest     time.Duration // how long all may take to come to rest afterwards
	Lease    time.Duration
	Patience time.Duration // how long a client waits for one acknowledgement

	Coordinators, Workers, Relays, Readers int
	Clients, Operators                     int
	Rate                                   float64 // requests per second, of all clients

	// Skew is how far clocks are off at most, either way; 0: not at all. Above 0,
	// package skew has built the programs.
	Skew time.Duration

	Faults  []string
	Every   time.Duration
	Regular bool
	Roles   []string
	Most    int
}

// attack is one that goes on.
type attack struct {
	Config

	dir     string
	w       *world.World
	db      *sql.DB // of the coordinators
	notes   *sql.DB
	reader  *sql.DB
	journal *load.Journal
	log     *slog.Logger // of the clients
	load    *load.Load
	nemesis *nemesis.Nemesis
	report  *Report
}

// Attack runs an attack and judges it. A report without an error may tell of
// violations; then the data stays where the report says.
func Attack(ctx context.Context, c Config) (r *Report, err error) {
	a := &attack{Config: c, report: newReport(c)}
	if a.dir, err = os.MkdirTemp("", "amends-torture-"); err != nil {
		return nil, err
	}
	a.say("seed %d, %d coordinators, %d clients, %v, faults %v; logs in %s", c.Seed, c.Coordinators, c.Clients, c.For, c.Faults, a.dir)
	if c.Skew > 0 {
		a.say("clocks are off by up to %v, either way", c.Skew)
	}
	if c.Other != "" {
		a.say("c1 runs %s", c.Other)
	}
	a.w, err = world.Open(ctx, world.Config{
		Dir: a.dir, Amends: c.Amends, Self: c.Self, Coordinators: c.Coordinators, Workers: c.Workers, Relays: c.Relays,
		Readers: c.Readers, Lease: c.Lease, Servers: c.Servers, Other: c.Other, Skew: c.Skew,
	})
	keep := true // after an error or a panic people want to look
	defer func() {
		err = errors.Join(err, a.close(keep && ctx.Err() == nil)) // after Ctrl-C they do not
	}()
	if err != nil {
		return nil, err
	}
	err = a.run(ctx)
	if err == nil {
		err = a.judge(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			a.hint()
		}
		return nil, err
	}
	if keep = c.Keep || a.report.Violations > 0; keep {
		a.report.Dir = a.dir
		a.hint()
	}
	return a.report, nil
}

func (a *attack) say(format string, args ...any) {
	fmt.Fprintf(a.Out, time.Now().UTC().Format("15:04:05.000")+"  "+format+"\n", args...)
}

// hint says where to look.
func (a *attack) hint() {
	a.say("kept, to be looked at:")
	for _, h := range append(a.w.Hints(), "what clients were told: "+filepath.Join(a.dir, "journal.jsonl")) {
		a.say("  %s", h)
	}
}

func (a *attack) close(keep bool) error {
	var errs []error
	for _, db := range []*sql.DB{a.db, a.notes, a.reader} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	errs = append(errs, a.w.Close(keep))
	if !keep {
		errs = append(errs, os.RemoveAll(a.dir))
	}
	return errors.Join(errs...)
}

// run returns when the attack is over, all has come to rest or had its time for
// it, and every process is gone.
func (a *attack) run(ctx context.Context) (err error) {
	for _, open := range []struct {
		to       **sql.DB
		database string
		conns    int
	}{{&a.db, world.Coordinators, 2}, {&a.notes, bank.Notes, 16}, {&a.reader, "", 2}} {
		if *open.to, err = bank.Open(a.w.DSN(open.database), open.conns); err != nil {
			return err
		}
	}
	if a.journal, err = load.NewJournal(filepath.Join(a.dir, "journal.jsonl")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.journal.Close()) }()
	file, err := os.OpenFile(filepath.Join(a.dir, "clients.log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close() // nothing depends on it
	a.log = slog.New(slog.NewTextHandler(file, nil))
	began := time.Now()
	err = a.w.Run(ctx, func(ctx context.Context) error {
		a.say("%d processes are up after %.1f s", len(a.w.Members), time.Since(began).Seconds())
		return a.torment(ctx)
	})
	if ctx.Err() != nil { // Ctrl-C
		return context.Cause(ctx)
	}
	return err
}

// torment lets clients and nemesis loose, and waits for peace.
func (a *attack) torment(ctx context.Context) error {
	conn, closer, err := a.Dial(a.w.Addresses(), a.log)
	if err != nil {
		return err
	}
	defer closer.Close() // nobody uses it any more
	a.load = load.New(load.Config{
		Seed: a.Seed, Clients: a.Clients, Rate: a.Rate, Patience: a.Patience, Operators: a.Operators, Conn: conn,
		Notes: a.notes, Topic: a.w.Topic, Journal: a.journal, Log: a.log,
	})
	a.nemesis = nemesis.New(a.w, nemesis.Config{
		Seed: a.Seed, Kinds: a.Faults, Every: a.Every, Regular: a.Regular, Roles: a.Roles, Most: a.Most,
		Patience: time.Minute, Leases: a.db, Say: a.Out,
	})
	during, cancel := context.WithTimeout(ctx, a.For)
	defer cancel()
	g, during := errgroup.WithContext(during)
	g.Go(func() error { return a.load.Run(during) })
	if len(a.Faults) > 0 {
		g.Go(func() error { return a.nemesis.Run(during) })
	}
	if err := g.Wait(); err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	began := time.Now()
	still, err := a.settle(ctx)
	a.report.RestSeconds = time.Since(began).Seconds()
	if still != "" {
		a.say("not at rest after %v: %s", a.Rest, still)
	}
	for _, m := range a.w.Members {
		a.report.PeakRSS[m.Name] = m.PeakRSS()
	}
	return err
}

// judge reads what is left.
func (a *attack) judge(ctx context.Context) error {
	a.report.took(a.load.Figures(), a.nemesis.Faults())
	j, err := check.Run(ctx, check.Sources{
		East: a.w.DSN(bank.East), West: a.w.DSN(bank.West), Notes: a.w.DSN(bank.Notes), Reader: a.w.DSN(""),
		Coordinators: a.w.DSN(world.Coordinators), Kafka: a.w.Kafka, Topic: a.w.Topic, Opening: bank.Opening,
		Told: a.journal.Lines(), Exits: a.w.Exits(), Struck: a.report.struck(),
	})
	if err != nil {
		return err
	}
	a.report.judged(j, a.Strict)
	return nil
}
