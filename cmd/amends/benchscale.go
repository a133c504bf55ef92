package main

import (
	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/cmd/amends/internal/bench"
)

// scaleFlags are those that make what a workload runs on larger.
func scaleFlags(cmd *cobra.Command, s *bench.Scale) {
	f := cmd.Flags()
	f.IntVar(&s.Finished, "finished", 0, "transactions in the store before it begins that have ended")
	f.IntVar(&s.Sleeping, "sleeping", 0, "transactions in the store before it begins that are due in an hour")
	f.IntVar(&s.Waiting, "waiting", 0, "transactions in the store before it begins that are due, for a service that is away")
	f.IntVar(&s.Coordinators, "coordinators", 1, "coordinators on the store; more than one with --store mysql")
	f.IntVar(&s.Streams, "streams", 1, "streams of the participant to each coordinator, each a connection")
	f.IntVar(&s.MaxLive, "max-live", 0, "unfinished transactions that each coordinator admits (default: as serve does)")
}
