// Command amends runs and inspects coordinators of distributed transactions:
//
//	amends dev       everything in one process, for development
//	amends serve     a coordinator, on SQLite or MySQL
//	amends relay     publishes the outbox of a SQLite or MySQL database
//	amends migrate   brings their tables up to date
//	amends tx        lists, shows and watches transactions, and acts on them
//	amends bulk      acts on every transaction that a filter selects
//	amends outbox    shows the outbox of a service, and acts on its messages
//	amends dead      shows and requeues dead letters of Kafka consumers
//	amends audit     proves that nobody edited the audit trail, and exports it
//	amends cluster   shows how the coordinators and the services are
//	amends bench     measures what Amends does on this machine
//	amends token     makes tokens for those who call a coordinator
//	amends version   prints the version
//
// It exits with 0 when all went well, 1 when something failed and 2 when it was
// called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: it ends gracefully when ctx does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "amends:", err)
	var wrong *usageError
	if errors.As(err, &wrong) {
		fmt.Fprintf(stderr, "See '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}
