package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/cmd/torture/internal/scene"
)

// newResume is the scene of the only coordinator with much in flight.
func newResume() *cobra.Command {
	c := scene.ResumeConfig{InFlight: 100_000, Rest: 5 * time.Minute, Lease: 3 * time.Second}
	var report string
	cmd := &cobra.Command{
		Use: "resume", Short: "Kill the only coordinator with many transactions in flight", Args: cobra.NoArgs,
		Long: `Kill the only coordinator with many transactions in flight, and measure how the
next one brings them to their end. With --hanging it is done twice: without and with
that many of them at a participant that never answers.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if c.InFlight < 1 || c.Hanging < 0 || c.Hanging >= c.InFlight || c.Rest <= 0 || c.Lease < time.Second {
				return fmt.Errorf("%w: --in-flight has to be above --hanging, --rest above 0, --lease 1s or more", errUsage)
			}
			if c.Amends, err = filepath.Abs(c.Amends); err != nil {
				return err
			}
			if c.Self, err = os.Executable(); err != nil {
				return err
			}
			c.Dial, c.Out = dial, cmd.ErrOrStderr()
			return resumes(cmd, c, report)
		},
	}
	f := cmd.Flags()
	f.IntVar(&c.InFlight, "in-flight", c.InFlight, "transactions in flight at the kill")
	f.IntVar(&c.Hanging, "hanging", 0, "of these, how many wait for a participant that never answers")
	f.DurationVar(&c.Rest, "rest", c.Rest, "how long they may take to end")
	f.DurationVar(&c.Lease, "lease", c.Lease, "lease time of the coordinator")
	f.StringVar(&c.Amends, "amends", "bin/amends", "program of the coordinator, a `file`")
	f.StringVar(&report, "report", "", "write the report as JSON to this `file`, too")
	return cmd
}

// resumes plays the scene, and once more with those that hang.
func resumes(cmd *cobra.Command, c scene.ResumeConfig, file string) error {
	hanging := []int{0}
	if c.Hanging > 0 {
		hanging = append(hanging, c.Hanging)
	}
	var reports []*scene.ResumeReport
	var errs []error
	for _, c.Hanging = range hanging {
		r, err := scene.Resume(cmd.Context(), c)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		reports = append(reports, r)
		errs = append(errs, r.Print(cmd.OutOrStdout()))
		if !r.Complete() {
			errs = append(errs, fmt.Errorf("%w: %d of %d transactions ended within %v", errViolated, r.Ended, r.InFlight-r.Hanging, c.Rest))
		}
	}
	if len(reports) == 2 && reports[0].EndRate > 0 {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "with %d hanging the others end at %.0f %% of the pace\n", c.Hanging,
			100*reports[1].EndRate/reports[0].EndRate)
		errs = append(errs, err)
	}
	if file != "" {
		text, err := json.MarshalIndent(reports, "", "  ")
		errs = append(errs, err, os.WriteFile(file, append(text, '\n'), 0o600))
	}
	return errors.Join(errs...)
}
