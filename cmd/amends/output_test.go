package main

import (
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain — ünïcode", "plain — ünïcode"},
		{"two\nlines\tof", "two lines of"},
		{"\x1b[31mred\x07", "\uFFFD[31mred\uFFFD"},
		{"\u202Eright to left", "\uFFFDright to left"},
		{strings.Repeat("é", maxCell), strings.Repeat("é", maxCell)},
		{strings.Repeat("é", maxCell+1), strings.Repeat("é", maxCell-1) + "…"},
	} {
		if got := printable(c.in); got != c.want {
			t.Errorf("printable(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestTableAligns(t *testing.T) {
	tab := newTable("A", "LONG")
	tab.row(text("ünï"), cell{"x", red})
	var out strings.Builder
	if err := tab.print(&out); err != nil {
		t.Fatal(err)
	}
	if want := "A    LONG\nünï  x\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestColourIsAroundTheTextOnly(t *testing.T) {
	if got, want := painted(cell{"x", red}, true), "\x1b[31mx\x1b[0m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := painted(text("x"), true); got != "x" {
		t.Errorf("got %q, want no colour", got)
	}
}
