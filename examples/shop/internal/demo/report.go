package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/examples/shop/internal/check"
)

// Result is what a demo found, and its JSON output.
type Result struct {
	OK         bool           `json:"ok"`
	Lines      int            `json:"lines"`       // that are orders
	BadLines   []BadLine      `json:"bad_lines"`   // that are none
	Again      int            `json:"again"`       // lines that handed in an order again
	TurnedAway map[string]int `json:"turned_away"` // lines whose placing was rolled back in the order service, by reason
	Recovered  map[string]int `json:"recovered"`   // transactions that something met when it went away and that ended later, by its name
	LeftOut    []string       `json:"left_out"`    // what was not restarted, and why
	Crashes    int            `json:"crashes"`     // of the payment service that orders asked for
	Died       map[string]int `json:"died"`        // processes that ended though nobody asked for it
	Seconds    float64        `json:"seconds"`
	*check.Figures
}

// BadLine is a line that was left out.
type BadLine struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

// judge runs the checker and prints what it found.
func (d *demo) judge(ctx context.Context) error {
	figures, err := check.Run(ctx, d.world.shop)
	if err != nil {
		d.tails()
		return err
	}
	r, err := d.result(ctx, figures)
	if err != nil {
		return err
	}
	if !r.OK {
		d.tails()
	}
	if d.cfg.JSON {
		out := json.NewEncoder(d.cfg.Out)
		out.SetIndent("", "  ")
		err = out.Encode(r)
	} else {
		d.print(r)
	}
	if err == nil && !r.OK {
		err = ErrFailed
	}
	return err
}

func (d *demo) result(ctx context.Context, figures *check.Figures) (*Result, error) {
	r := &Result{
		OK: true, Lines: len(d.cfg.Orders), BadLines: []BadLine{}, Again: d.feeder.again, TurnedAway: d.feeder.turnedAway,
		Recovered: map[string]int{}, LeftOut: append([]string{}, d.world.leftOut...), Crashes: d.payment.died(),
		Died: map[string]int{}, Seconds: time.Since(d.console.start).Seconds(), Figures: figures,
	}
	for _, b := range d.cfg.Bad {
		r.BadLines = append(r.BadLines, BadLine{b.Number, b.Reason.Error()})
	}
	for _, f := range d.faults {
		if f.struck.IsZero() {
			continue // it had come to a standstill before
		}
		_, ended, err := check.UnderWay(ctx, d.world.shop, f.struck)
		if err != nil {
			return nil, err
		}
		r.Recovered[f.name] = ended
	}
	for _, p := range d.all {
		if n := p.died(); n > 0 && p != d.payment {
			r.Died[p.name] = n
		}
	}
	if d.stalled != "" {
		r.Invariants = append(r.Invariants, check.Invariant{Name: "comes to rest", Problems: []string{d.stalled}})
	}
	for _, i := range r.Invariants {
		r.OK = r.OK && i.Holds()
	}
	return r, nil
}

// print prints the table; its last line is the verdict.
func (d *demo) print(r *Result) {
	row := func(what, n, more string) {
		d.console.line(plain, strings.TrimRight(fmt.Sprintf("  %-26s %7s  %s", what, n, more), " "))
	}
	d.console.line(plain, "")
	row("lines handed in", number(r.Lines), fmt.Sprintf("%d left out", len(r.BadLines)))
	row("  turned away", number(sum(r.TurnedAway)), reasons(r.TurnedAway))
	row("  handed in again", number(r.Again), "without effect")
	row("orders in", number(r.Orders), "")
	row("  committed", number(r.Committed), "")
	row("  rolled back", number(sum(r.RolledBack)), reasons(r.RolledBack))
	row("rewards (TCC)", number(r.Rewarded+sum(r.Cancelled)), "")
	row("  confirmed", number(r.Rewarded), "")
	row("  cancelled", number(sum(r.Cancelled)), reasons(r.Cancelled))
	for _, f := range d.faults {
		row("recovered", number(r.Recovered[f.name]), "transactions under way when "+f.name+" went away")
	}
	row("crashes of its own", number(r.Crashes), "of payment, where orders ask for it")
	for _, name := range sorted(r.Died) {
		row("ended by itself", number(r.Died[name]), name+", which is in its log")
	}
	row("messages written", number(r.Written), "")
	row("  published", number(r.Published), "")
	row("  handled", number(r.Handled), "")
	row("  duplicates suppressed", number(r.Suppressed), "")
	d.console.line(plain, "")
	var failed []string
	for _, i := range r.Invariants {
		if i.Holds() {
			d.console.line(green, fmt.Sprintf("  holds   %s: %s", i.Name, i.Figures))
			continue
		}
		failed = append(failed, i.Name)
		d.console.line(red, fmt.Sprintf("  BROKEN  %s: %s", i.Name, i.Figures))
		for _, problem := range i.Problems {
			d.console.line(red, "          "+printable(problem))
		}
	}
	d.console.line(plain, "")
	if !r.OK {
		d.console.line(red, "FAILED: "+strings.Join(failed, "; "))
		return
	}
	d.console.line(green, fmt.Sprintf("ok: %s orders: %s committed, %s rolled back; %s transactions recovered after %s; "+
		"%s messages published, %s handled once, %s duplicates suppressed; %d invariants hold (%.0f s)",
		number(r.Orders), number(r.Committed), number(sum(r.RolledBack)), number(sum(r.Recovered)), d.counts(),
		number(r.Published), number(r.Handled), number(r.Suppressed), len(r.Invariants), r.Seconds))
}

// counts says how often something went away.
func (d *demo) counts() string {
	kills, restarts := 0, 0
	for _, f := range d.faults {
		if f.kill {
			kills++
		} else {
			restarts++
		}
	}
	text := several(kills, "kill")
	if restarts > 0 {
		text += " and " + several(restarts, "restart")
	}
	return text
}

func several(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

const tailLines = 12

// tails shows how the logs of processes and servers end.
func (d *demo) tails() {
	var files []string
	for _, p := range d.all {
		files = append(files, p.log)
	}
	for _, s := range d.world.servers {
		files = append(files, filepath.Join(s.p.Dir, "log"))
	}
	for _, file := range files {
		log, err := os.ReadFile(file)
		if err != nil || len(log) == 0 {
			continue // it was never started
		}
		lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
		d.console.line(bold, fmt.Sprintf("--- the end of %s", file))
		for _, line := range lines[max(0, len(lines)-tailLines):] {
			d.console.line(plain, printable(string(line)))
		}
	}
}

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

func sorted(counts map[string]int) []string { return slices.Sorted(maps.Keys(counts)) }
