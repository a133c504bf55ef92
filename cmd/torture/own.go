package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
	"github.com/amends-dev/amends/cmd/torture/internal/world"
)

// newWorker and newReader are the processes that a torture starts of itself.
func newWorker() *cobra.Command {
	return &cobra.Command{
		Use: world.Worker + " FILE", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := bank.Load(args[0])
			if err != nil {
				return err
			}
			return bank.Work(cmd.Context(), c, dial, logger(cmd), cmd.OutOrStdout())
		},
	}
}

func newReader() *cobra.Command {
	return &cobra.Command{
		Use: world.Reader + " FILE", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := bank.Load(args[0])
			if err != nil {
				return err
			}
			return bank.Read(cmd.Context(), c, logger(cmd), cmd.OutOrStdout())
		},
	}
}

const clockUse = "clock"

// newClock prints the time, so that a torture can tell whether it has set the
// clock of a program off.
func newClock() *cobra.Command {
	return &cobra.Command{
		Use: clockUse, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), time.Now().UnixMicro())
			return err
		},
	}
}

func logger(cmd *cobra.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
}
