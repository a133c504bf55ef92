package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// paint is an ANSI colour, or none.
type paint string

const (
	plain  paint = ""
	bold   paint = "1"
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
)

// console prints what happens, each line with the time since the start. In
// colour on a terminal, unless NO_COLOR is set.
type console struct {
	mu     sync.Mutex
	w      io.Writer
	start  time.Time
	colour bool
}

func newConsole(w io.Writer) *console {
	f, ok := w.(*os.File)
	colour := ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd())) //nolint:gosec // small
	return &console{w: w, start: time.Now(), colour: colour}
}

// say prints a line with its time.
func (c *console) say(p paint, format string, args ...any) {
	c.line(p, fmt.Sprintf("%5.1fs  ", time.Since(c.start).Seconds())+fmt.Sprintf(format, args...))
}

// line prints a line. That it cannot be printed is no reason to stop a shop.
func (c *console) line(p paint, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.colour && p != plain {
		text = "\x1b[" + string(p) + "m" + text + "\x1b[0m"
	}
	fmt.Fprintln(c.w, text)
}

// number prints 12345 as 12,345.
func number(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// reasons prints a count by reason.
func reasons(counts map[string]int) string {
	var parts []string
	for _, reason := range sorted(counts) {
		parts = append(parts, fmt.Sprintf("%s %s", number(counts[reason]), printable(reason)))
	}
	return strings.Join(parts, ", ")
}

// printable takes out what would move a terminal's cursor.
func printable(s string) string {
	q := fmt.Sprintf("%q", s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
