package skew

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPlaceIsFound: this Go version's time.Now is where it is to be changed.
func TestPlaceIsFound(t *testing.T) {
	if _, err := overlay(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
}

// TestClockSteps: what a clock was last set to is in its file, whole.
func TestClockSteps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	c, err := NewClock(file, -30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []time.Duration{-30 * time.Second, 0, 1500 * time.Millisecond} {
		if err := c.Set(off); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := time.ParseDuration(string(text)); err != nil || d != off || c.Off() != off {
			t.Errorf("set to %v: %q in the file, %v, %v", off, text, c.Off(), err)
		}
	}
}
