// Command torture attacks a cluster of coordinators, relays, participants and
// consumers on MariaDB, Redis and Kafka, all of them its own, and judges by
// databases and log alone whether every promise held:
//
//	torture            a nemesis with every fault there is
//	torture kills      kill -9 of a random coordinator every 10 s
//	torture term       SIGTERM of the only coordinator, under load
//	torture rolling    SIGTERM of one coordinator after the other, under load
//	torture resume     kill -9 of the only coordinator with 100,000 transactions in flight
//
// One of the faults sets wall clocks off. For it the programs are built anew, with
// a change to the standard library's clock and none to Amends.
//
// It is a tool for the development of Amends, run in its work tree. It exits with
// 0 when every promise held, 1 when one did not or something failed, and 2 when
// it was called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

var (
	errViolated = errors.New("a promise does not hold")
	errUsage    = errors.New("wrong usage")
)

// run is the program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "torture:", err)
		return 2
	}
	fmt.Fprintln(stderr, "torture:", err)
	return 1
}

func newRoot() *cobra.Command {
	root := newAttack("torture", "Attack a cluster with every fault there is, and judge what is left", nil)
	root.SilenceErrors, root.SilenceUsage = true, true // run prints them
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errors.Join(errUsage, err) })
	root.AddCommand(newKills(), newTerm(), newRolling(), newResume(), newWorker(), newReader(), newClock())
	return root
}
