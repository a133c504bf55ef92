package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// aboutFilters ends the help of commands that take --filter.
const aboutFilters = `
A filter joins terms by AND. Fields: state, kind, name, paused, unfinished,
stalled, participant, create_time, update_time, labels.KEY. The flags --state,
--stalled, --unfinished, --participant and --label add such terms to it.`

// selection is which transactions a command is about.
type selection struct {
	filter, state, participant string
	stalled, unfinished        bool
	labels                     []string
}

func (s *selection) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.filter, "filter", "", "only those that match")
	f.StringVar(&s.state, "state", "", "only those in this `state`, for example parked")
	completes(cmd, "state", stateNames()...)
	f.BoolVar(&s.stalled, "stalled", false, "only those that have waited too long")
	f.BoolVar(&s.unfinished, "unfinished", false, "only those that have not ended")
	f.StringVar(&s.participant, "participant", "", "only stalled or parked ones that wait for this `service`")
	f.StringArrayVar(&s.labels, "label", nil, "only those with this label, as `key=value` (can be repeated)")
}

// build makes one filter of the flags; empty selects everything.
func (s *selection) build() (string, error) {
	var terms []string
	if f := strings.TrimSpace(s.filter); f != "" {
		terms = append(terms, f)
	}
	if s.state != "" {
		state, err := stateNamed(s.state)
		if err != nil {
			return "", err
		}
		terms = append(terms, fmt.Sprintf("state = %q", state))
	}
	if s.stalled {
		terms = append(terms, "stalled = true")
	}
	if s.unfinished {
		terms = append(terms, "unfinished = true")
	}
	if s.participant != "" {
		terms = append(terms, "participant = "+strconv.Quote(s.participant))
	}
	for _, l := range s.labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return "", usagef("--label %q: want key=value", l)
		}
		terms = append(terms, "labels."+key+" = "+strconv.Quote(value))
	}
	return strings.Join(terms, " AND "), nil
}

// stateNamed is a state as filters know it: "rolling-back" is "ROLLING_BACK".
func stateNamed(s string) (string, error) {
	name := strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
	if v, ok := amendsv1.State_value["STATE_"+name]; ok && v != 0 {
		return name, nil
	}
	return "", usagef("--state %q: want one of %s", s, strings.Join(stateNames(), ", "))
}

// stateNames are all states as people write them.
func stateNames() []string {
	var all []string
	for v, n := range amendsv1.State_name {
		if v != 0 {
			all = append(all, strings.ReplaceAll(word(n, "STATE_"), "_", "-"))
		}
	}
	slices.Sort(all)
	return all
}
