package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// output is how a command prints what it found.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

func (o *output) flag(cmd *cobra.Command) {
	*o = outputTable
	cmd.Flags().VarP(o, "output", "o", "table or json")
	completes(cmd, "output", string(outputTable), string(outputJSON))
}

// completes names the values that a shell should offer for a flag.
func completes(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

// String, Set and Type make an output a flag.
func (o *output) String() string { return string(*o) }

// Set takes one of the two words.
func (o *output) Set(s string) error {
	if s != string(outputTable) && s != string(outputJSON) {
		return fmt.Errorf("want %s or %s", outputTable, outputJSON)
	}
	*o = output(s)
	return nil
}

// Type names the values in the help.
func (o *output) Type() string { return "format" }

func (o output) json() bool { return o == outputJSON }

// paint is an ANSI colour, or none.
type paint string

const (
	plain  paint = ""
	bold   paint = "1"
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
)

// cell is one field of a table.
type cell struct {
	text  string
	paint paint
}

func text(s string) cell { return cell{text: s} }

// table prints rows in columns, in colour if w is a terminal and NO_COLOR is
// not set.
type table struct {
	rows [][]cell
}

func newTable(headings ...string) *table {
	t := &table{}
	row := make([]cell, len(headings))
	for i, h := range headings {
		row[i] = cell{h, bold}
	}
	t.rows = append(t.rows, row)
	return t
}

func (t *table) row(cells ...cell) {
	for i := range cells {
		cells[i].text = printable(cells[i].text)
	}
	t.rows = append(t.rows, cells)
}

func (t *table) print(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	colour := coloured(w)
	var out strings.Builder
	for _, row := range t.rows {
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2)
			if i == len(row)-1 {
				pad = ""
			}
			out.WriteString(painted(c, colour) + pad)
		}
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func painted(c cell, colour bool) string {
	if !colour || c.paint == plain || c.text == "" {
		return c.text
	}
	return "\x1b[" + string(c.paint) + "m" + c.text + "\x1b[0m"
}

func coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}

// maxCell is the longest field of a table, in characters. JSON is never cut.
const maxCell = 120

// printable makes text of strangers safe for a terminal: control characters
// cannot move the cursor or recolour, and what is cut shows it.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return utf8.RuneError
		}
		return r
	}, s)
	if utf8.RuneCountInString(s) > maxCell {
		s = string([]rune(s)[:maxCell-1]) + "…"
	}
	return s
}
