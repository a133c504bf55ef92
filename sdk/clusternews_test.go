package sdk

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestOneAddressIsEnough: whoever is given one of three learns the others from
// its first answer, or, when the cluster is just being started and the first
// does not know them yet, soon after: not after a PollInterval.
func TestOneAddressIsEnough(t *testing.T) {
	for name, late := range map[string]int64{"at once": 0, "soon": 3} {
		t.Run(name, func(t *testing.T) {
			f, m := newFakeCluster(t, 3)
			var polls atomic.Int64
			m[0].list = func(context.Context) ([]*amendsv1.Member, error) {
				all := f.list(m[0])
				if polls.Add(1) <= late {
					return all[:1], nil
				}
				return all, nil
			}
			c, err := Dial([]string{m[0].address}, &DialConfig{PollInterval: 24 * time.Hour, Logger: quiet()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() }) // it never fails
			reached(t, c, 3)
		})
	}
}

// TestPollPace: without news, polls become as rare as PollInterval says.
func TestPollPace(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Millisecond, 5 * time.Second, 24 * time.Hour} {
		c := &Cluster{cfg: DialConfig{PollInterval: interval}}
		before := time.Duration(0)
		for calm := range 20 {
			wait := c.pace(calm)
			if wait < before || wait > interval {
				t.Errorf("after %d polls without news %v, after one more %v: PollInterval is %v", calm-1, before, wait, interval)
			}
			before = wait
		}
		if before != interval {
			t.Errorf("%v in the end, want %v", before, interval)
		}
	}
}
