package inbox

import "testing"

// TestDefaultConcurrency leaves connections of a bounded pool to others.
func TestDefaultConcurrency(t *testing.T) {
	b := inProcess(t)
	c := &Consumer{db: b.db}
	for open, want := range map[int]int{0: 32, 1: 1, 5: 5, 10: 8, 20: 10, 64: 32, 1000: 32} {
		b.db.SetMaxOpenConns(open)
		if got := c.concurrency(); got != want {
			t.Errorf("pool of %d: %d handlers, want %d", open, got, want)
		}
	}
	if c.cfg.Concurrency = 3; c.concurrency() != 3 {
		t.Error("what is configured is ignored")
	}
}
