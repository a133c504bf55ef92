package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/cmd/torture/internal/nemesis"
	"github.com/amends-dev/amends/cmd/torture/internal/scene"
	"github.com/amends-dev/amends/cmd/torture/internal/skew"
	"github.com/amends-dev/amends/cmd/torture/internal/world"
	"github.com/amends-dev/amends/deploy/services"
)

// attacking is a scene with its flags.
type attacking struct {
	scene.Config

	report string
}

// newAttack makes the command of a scene; preset changes the defaults of its
// flags.
func newAttack(use, short string, preset func(c *scene.Config)) *cobra.Command {
	a := attacking{Config: scene.Config{
		Name: use, For: 2 * time.Minute, Rest: 2 * time.Minute, Lease: 3 * time.Second, Patience: time.Minute,
		Coordinators: 3, Workers: 2, Relays: 2, Readers: 2, Clients: 64, Operators: 2, Rate: 120,
		Skew: 25 * time.Second, Faults: nemesis.All, Every: 4 * time.Second,
	}}
	if preset != nil {
		preset(&a.Config)
	}
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd)
	}}
	f := cmd.Flags()
	f.DurationVar(&a.For, "for", a.For, "how long clients work and faults strike")
	f.DurationVar(&a.Rest, "rest", a.Rest, "how long all may take to come to rest afterwards")
	f.Uint64Var(&a.Seed, "seed", 0, "what the faults and the clients' requests are drawn from (default: a new one)")
	f.IntVar(&a.Coordinators, "coordinators", a.Coordinators, "processes of amends serve")
	f.IntVar(&a.Workers, "workers", a.Workers, "processes with an instance of each service")
	f.IntVar(&a.Relays, "relays", a.Relays, "processes of amends relay")
	f.IntVar(&a.Readers, "readers", a.Readers, "processes that consume the log")
	f.IntVar(&a.Clients, "clients", a.Clients, "clients that start transactions")
	f.IntVar(&a.Operators, "operators", a.Operators, "operators that act on them")
	f.Float64Var(&a.Rate, "rate", a.Rate, "requests per second, of all clients")
	f.DurationVar(&a.Lease, "lease", a.Lease, "lease time of coordinators and relays")
	f.DurationVar(&a.Patience, "patience", a.Patience, "how long a client waits for an acknowledgement before it counts as failed")
	f.StringSliceVar(&a.Faults, "faults", a.Faults, "faults to draw from; none: no fault")
	f.DurationVar(&a.Every, "every", a.Every, "pause between faults, on average")
	f.DurationVar(&a.Skew, "skew", a.Skew, "with the fault skew: how far the clock of each process is off at most, either way; coordinators bear less than a minute between them")
	f.StringVar(&a.Amends, "amends", "bin/amends", "program of coordinators and relays, a `file`; with the fault skew it is built anew")
	f.StringVar(&a.Other, "other-binary", "", "another build of amends, a `file`, which the first coordinator runs: a mixed cluster")
	f.BoolVar(&a.Keep, "keep", false, "leave data and logs where they are")
	f.StringVar(&a.report, "report", "", "write the report as JSON to this `file`, too")
	return cmd
}

// check reports every mistake in the flags.
func (a *attacking) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for name, n := range map[string]int{
		"coordinators": a.Coordinators, "workers": a.Workers, "relays": a.Relays, "readers": a.Readers, "clients": a.Clients,
	} {
		if n < 1 || n > 1000 {
			bad("--%s is %d: give 1 to 1000", name, n)
		}
	}
	for name, d := range map[string]time.Duration{"for": a.For, "rest": a.Rest, "every": a.Every, "patience": a.Patience} {
		if d <= 0 {
			bad("--%s is %v: give a duration above 0", name, d)
		}
	}
	if a.Lease < time.Second {
		bad("--lease is %v: give 1s or more", a.Lease)
	}
	if a.Rate <= 0 {
		bad("--rate is %v: give a number above 0", a.Rate)
	}
	if a.Operators < 0 {
		bad("--operators is %d: give 0 or more", a.Operators)
	}
	if a.Faults = slices.DeleteFunc(a.Faults, func(k string) bool { return k == "none" }); len(a.Faults) > 0 {
		errs = append(errs, nemesis.Check(a.Faults))
	}
	if _, err := os.Stat(a.Amends); err != nil && !a.skews() {
		bad("--amends: %w: run `make build`", err)
	}
	if _, err := os.Stat(a.Other); err != nil && a.Other != "" {
		bad("--other-binary: %w", err)
	}
	if a.skews() && a.Skew <= 0 {
		bad("--skew is %v: give a duration above 0, or leave skew out of --faults", a.Skew)
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(errUsage, err)
	}
	return nil
}

func (a *attacking) skews() bool { return slices.Contains(a.Faults, nemesis.Skew) }

// programs finds those that are to run, or builds them where clocks are to be
// set off.
func (a *attacking) programs(cmd *cobra.Command) (err error) {
	for _, file := range []*string{&a.Amends, &a.Other} {
		if *file == "" {
			continue
		}
		if *file, err = filepath.Abs(*file); err != nil {
			return err
		}
	}
	if a.Self, err = os.Executable(); err != nil {
		return err
	}
	if !a.skews() {
		a.Skew = 0
		return nil
	}
	root, err := services.Root(".")
	if err != nil {
		return err
	}
	dir := filepath.Join(root, ".cache", "skew")
	fmt.Fprintln(cmd.ErrOrStderr(), "building programs whose clock can be set off in", dir)
	if err := skew.Build(cmd.Context(), root, dir, "./cmd/amends", "./cmd/torture"); err != nil {
		return fmt.Errorf("%w\n(or leave out the fault skew: --faults %s)", err, strings.Join(nemesis.All[:len(nemesis.All)-1], ","))
	}
	a.Amends, a.Self = filepath.Join(dir, "amends"), filepath.Join(dir, "torture")
	return skew.Check(cmd.Context(), dir, a.Self, clockUse)
}

func (a *attacking) run(cmd *cobra.Command) error {
	if err := a.check(); err != nil {
		return err
	}
	if err := a.programs(cmd); err != nil {
		return err
	}
	if a.Seed == 0 {
		a.Seed = rand.Uint64N(1_000_000)
	}
	a.Dial, a.Out = dial, cmd.ErrOrStderr()
	r, err := scene.Attack(cmd.Context(), a.Config)
	if err != nil {
		return fmt.Errorf("seed %d: %w", a.Seed, err)
	}
	if err := r.Print(cmd.OutOrStdout()); err != nil {
		return err
	}
	if a.report != "" {
		if err := r.Save(a.report); err != nil {
			return err
		}
	}
	if r.Violations > 0 {
		return fmt.Errorf("%w: repeat the plan of faults with --seed %d", errViolated, a.Seed)
	}
	return nil
}

func newKills() *cobra.Command {
	return newAttack("kills", "Kill a random coordinator every 10 s", func(c *scene.Config) {
		c.Faults, c.Every, c.Regular, c.Roles = []string{nemesis.Kill}, 10*time.Second, true, []string{world.Coordinator}
		c.Strict = true
	})
}

func newTerm() *cobra.Command {
	return newAttack("term", "Ask the only coordinator to end, under load", func(c *scene.Config) {
		c.Faults, c.Every, c.Regular, c.Most = []string{nemesis.Term}, 5*time.Second, true, 3
		c.Coordinators, c.For, c.Strict = 1, 30*time.Second, true
	})
}

func newRolling() *cobra.Command {
	return newAttack("rolling", "Restart one coordinator after the other, under load", func(c *scene.Config) {
		c.Faults, c.Every, c.Regular, c.Most = []string{nemesis.Term}, 5*time.Second, true, 6
		c.For, c.Strict = time.Minute, true
	})
}
