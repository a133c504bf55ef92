// Package world is what the torture happens to: servers, databases, a topic, and
// around them the processes of a cluster, each behind proxies of its own.
package world

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/cmd/torture/internal/proxy"
	"github.com/amends-dev/amends/deploy/services"
)

// Config says what there is.
type Config struct {
	Dir    string // of logs and configurations; it exists
	Amends string // the program of coordinators and relays
	Self   string // this program, for the processes of the bank's
	Other  string // another build of Amends, which the first coordinator runs; empty: none

	Coordinators, Workers, Relays, Readers int // processes

	Lease   time.Duration // of coordinators and relays
	MaxLive int           // of each coordinator; 0: the default

	// Skew is how far the clocks of processes are off at the beginning: by turns
	// behind, ahead, and not at all. Amends and Self were built by package skew.
	// Without it they go right.
	Skew time.Duration

	// Bare leaves out Redis and Kafka, for a world without relays and readers.
	Bare bool

	// Servers are the addresses of those that exist, as services.Ping takes them;
	// others are started, and belong to the world.
	Servers map[services.Service]string
}

// World is made by Open and alive in Run.
type World struct {
	Config

	Members []*Member                              // every process
	Own     map[services.Service]*services.Process // servers of the world's own
	Kafka   []string
	Redis   string
	Topic   string
	Group   string // of the readers

	dsn      map[string]string // of databases, straight to the server
	prefix   string            // of databases
	root     string            // of the work tree, where servers are written down
	topicNew bool              // made here
}

// Roles of processes.
const (
	Coordinator = "coordinator"
	Worker      = "worker"
	Relay       = "relay"
	Reader      = "reader"
)

// Coordinators is the database that they share; the reader's is under bank's "".
const Coordinators = "coordinators"

// Open starts the servers and makes databases and topic. What it began is ended
// by Close, after an error too.
func Open(ctx context.Context, cfg Config) (*World, error) {
	w := &World{Config: cfg, Own: map[services.Service]*services.Process{}, dsn: map[string]string{}}
	var err error
	if w.root, err = services.Root("."); err != nil {
		return w, err
	}
	if _, err := services.Sweep(w.root); err != nil { // of a torture that was killed
		return w, err
	}
	addr, err := w.servers(ctx)
	if err != nil {
		return w, err
	}
	w.Kafka, w.Redis = strings.Split(addr[services.Kafka], ","), addr[services.Redis]
	if err := w.databases(ctx, addr[services.MySQL]); err != nil {
		return w, fmt.Errorf("databases: %w", err)
	}
	if !w.Bare {
		if err := w.makeTopic(ctx); err != nil {
			return w, fmt.Errorf("topic: %w", err)
		}
	}
	return w, w.makeMembers()
}

// servers starts those that are not given, side by side.
func (w *World) servers(ctx context.Context) (map[services.Service]string, error) {
	addr := map[services.Service]string{}
	wanted := services.Core
	if w.Bare {
		wanted = []services.Service{services.MySQL}
	}
	var g errgroup.Group
	for _, s := range wanted {
		if given := w.Servers[s]; given != "" {
			addr[s] = given
			continue
		}
		p, err := services.New(ctx, s)
		var missing *services.MissingError
		if errors.As(err, &missing) {
			err = fmt.Errorf("no %s: %w; or run `make services`, which installs what it may", s.Title(), err)
		}
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		addr[s], w.Own[s] = p.Addr, p
		g.Go(func() error { return p.Own(ctx, w.root) })
	}
	return addr, g.Wait()
}

// DSN is where a database is, without a proxy before it.
func (w *World) DSN(database string) string { return w.dsn[database] }

// Run runs proxies and processes, and fn when all of these work; when fn returns
// they are ended, each after those that stand on it.
func (w *World) Run(ctx context.Context, fn func(ctx context.Context) error) error {
	proxies, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, proxies := errgroup.WithContext(proxies)
	for _, m := range w.Members {
		for _, p := range []*proxy.Proxy{m.DB, m.Front} {
			if p != nil {
				g.Go(func() error { return p.Run(proxies) })
			}
		}
	}
	g.Go(func() error {
		defer stop()
		return w.stage(ctx, w.order(), fn)
	})
	return g.Wait()
}

// startTime is for a machine that is busy with something else.
const startTime = 90 * time.Second

// order is who begins after whom: the others stand on the coordinators, and of
// these one of another build, if there is one, was there before.
func (w *World) order() [][]*Member {
	first, rest := w.Role(Coordinator), []*Member(nil)
	if w.Other != "" {
		first, rest = first[:1], first[1:]
	}
	return [][]*Member{first, rest, slices.Concat(w.Role(Worker), w.Role(Relay), w.Role(Reader))}
}

// stage runs the first processes, and on top of them the others.
func (w *World) stage(ctx context.Context, order [][]*Member, fn func(ctx context.Context) error) error {
	if len(order) == 0 {
		return fn(ctx)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range order[0] {
		g.Go(func() error { return m.Run(ctx) })
	}
	g.Go(func() error {
		defer stop()
		soon, cancel := context.WithTimeout(ctx, startTime)
		defer cancel()
		for _, m := range order[0] {
			if err := m.AwaitReady(soon, 0); err != nil {
				return err
			}
		}
		return w.stage(ctx, order[1:], fn)
	})
	return g.Wait()
}

// Close ends the servers of the world's own and takes away what was made. What
// is kept stays where it is, to be looked at.
func (w *World) Close(keep bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime) // also after Ctrl-C
	defer cancel()
	var errs []error
	if !keep {
		errs = append(errs, w.dropTopic(ctx), w.dropDatabases(ctx))
	}
	for _, p := range w.Own {
		if keep {
			errs = append(errs, p.Resume(), p.Stop(), services.Forget(w.root, p))
			continue
		}
		errs = append(errs, services.Disown(w.root, p))
	}
	return errors.Join(errs...)
}

// Hints are how a person looks at what was kept.
func (w *World) Hints() []string {
	hints := []string{"logs: " + filepath.Join(w.Dir, "*.log")}
	for s, p := range w.Own {
		hints = append(hints, fmt.Sprintf("%s: its data is in %s; start it with: cd %s && %s %s", s.Title(), p.Dir, p.Dir, p.Path,
			strings.Join(p.Args, " ")))
	}
	for _, dsn := range w.dsn {
		hints = append(hints, "a database: "+dsn)
	}
	return hints
}
