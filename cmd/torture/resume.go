package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/cmd/torture/internal/scene"
)

// newResume is the scene of the only coordinator with much in flight.
func newResume() *cobra.Command {
	c := scene.ResumeConfig{InFlight: 100_000, Rest: 5 * time.Minute, Lease: 3 * time.Second}
	var report string
	rounds := 1
	cmd := &cobra.Command{
		Use: "resume", Short: "Kill the only coordinator with many transactions in flight", Args: cobra.NoArgs,
		Long: `Kill the only coordinator with many transactions in flight, and measure how the
next one brings them to their end. With --hanging each round has two: without and with
that many of them at a participant that never answers.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if c.InFlight < 1 || c.Hanging < 0 || c.Hanging >= c.InFlight || c.Rest <= 0 || c.Lease < time.Second || rounds < 1 {
				return fmt.Errorf("%w: --in-flight has to be above --hanging, --rest above 0, --lease 1s or more, --rounds 1 or more", errUsage)
			}
			if c.Amends, err = filepath.Abs(c.Amends); err != nil {
				return err
			}
			if c.Self, err = os.Executable(); err != nil {
				return err
			}
			c.Dial, c.Out = dial, cmd.ErrOrStderr()
			return resumes(cmd, c, rounds, report)
		},
	}
	f := cmd.Flags()
	f.IntVar(&c.InFlight, "in-flight", c.InFlight, "transactions in flight at the kill")
	f.IntVar(&c.Hanging, "hanging", 0, "of these, how many wait for a participant that never answers")
	f.DurationVar(&c.Rest, "rest", c.Rest, "how long they may take to end")
	f.DurationVar(&c.Lease, "lease", c.Lease, "lease time of the coordinator")
	f.IntVar(&rounds, "rounds", rounds, "how often it is done; with --hanging by turns, and the medians compared")
	f.StringVar(&c.Amends, "amends", "bin/amends", "program of the coordinator, a `file`")
	f.StringVar(&report, "report", "", "write the report as JSON to this `file`, too")
	return cmd
}

// resumes plays the scene, each time without and, if there are to be any, with
// those that hang.
func resumes(cmd *cobra.Command, c scene.ResumeConfig, rounds int, file string) error {
	hanging := []int{0}
	if c.Hanging > 0 {
		hanging = append(hanging, c.Hanging)
	}
	var reports []*scene.ResumeReport
	var errs []error
	for range rounds {
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
	}
	if c.Hanging > 0 {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "with %d hanging the others end at %.0f %% of the pace, for %.0f %% of the processor time each\n",
			c.Hanging, 100*ratio(reports, func(r *scene.ResumeReport) float64 { return r.EndRate }),
			100*ratio(reports, (*scene.ResumeReport).CPUEach))
		errs = append(errs, err)
	}
	if file != "" {
		text, err := json.MarshalIndent(reports, "", "  ")
		errs = append(errs, err, os.WriteFile(file, append(text, '\n'), 0o600))
	}
	return errors.Join(errs...)
}

// ratio is the median of a figure with some that hang, by that without; 0 where
// nothing was measured.
func ratio(reports []*scene.ResumeReport, figure func(*scene.ResumeReport) float64) float64 {
	var with, without []float64
	for _, r := range reports {
		if r.Hanging > 0 {
			with = append(with, figure(r))
		} else {
			without = append(without, figure(r))
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	if base := without[len(without)/2]; base > 0 {
		return with[len(with)/2] / base
	}
	return 0
}
