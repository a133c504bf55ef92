package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is a mistake in how the program was called.
type usageError struct{ err error }

// Error returns the mistake.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns what is behind it.
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func newRoot() *cobra.Command {
	root := group(&cobra.Command{
		Use:           "amends",
		Short:         "Distributed transactions for Go: sagas, TCC, transactional outbox",
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newDev(), newServe(), newRelay(), newMigrate(), newTx(), newBulk(), newOutbox(), newDead(),
		newAudit(), newCluster(), newBench(), newToken(), newVersion())
	return root
}

// group makes a command that only holds others: it shows its help, and says so
// when a command is misspelt.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// noArgs and oneGID are what commands take beside flags.
func noArgs(_ *cobra.Command, args []string) error {
	switch {
	case len(args) > 0 && strings.Contains(args[0], "@"):
		return usagef("unexpected argument (not shown: it may hold a password)")
	case len(args) > 0:
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

func oneGID(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("want one argument, the gid of a transaction, got %d", len(args))
	}
	return nil
}
