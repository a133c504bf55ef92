package saga_test

import (
	"fmt"
	"testing"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// chain returns a saga of n steps, one after the other.
func chain(n int) *saga.Definition {
	d := &saga.Definition{Name: "chain"}
	for i := range n {
		st := saga.Step{Name: fmt.Sprintf("s%d", i), Action: "svc.act", Payload: []byte(`{"cents":500}`)}
		if i > 0 {
			st.After = []int{i - 1}
		}
		d.Steps = append(d.Steps, st)
	}
	return d
}

// BenchmarkRun is one whole run: Advance and Outstanding for each step.
func BenchmarkRun(b *testing.B) {
	for _, n := range []int{2, 10, 100} {
		d := chain(n)
		for _, stored := range []bool{false, true} {
			b.Run(fmt.Sprintf("steps=%d/encode=%t", n, stored), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s := saga.New(d)
					for !s.Phase.Finished() {
						c := s.Outstanding(d)[0]
						next, err := s.Advance(d, txn.Replied{
							Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.OK, Reply: []byte("ok")})
						if err != nil {
							b.Fatal(err)
						}
						s = next
						if stored {
							if _, err := s.Encode(); err != nil {
								b.Fatal(err)
							}
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/step")
			})
		}
	}
}
