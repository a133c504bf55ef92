package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// skew has the wall clock of a process step, and leaves it so.
func (n *Nemesis) skew(_ context.Context, f *Fault) error {
	m := n.victim()
	f.Target = m.Name
	if m.Clock == nil || n.w.Skew <= 0 {
		return nil
	}
	before := m.Clock.Off()
	after := time.Duration(n.rnd.Int64N(2*int64(n.w.Skew))) - n.w.Skew
	f.How = fmt.Sprintf("its clock was off by %+.1f s, is by %+.1f s", before.Seconds(), after.Seconds())
	return m.Clock.Set(after)
}

// setRight sets every clock right.
func (n *Nemesis) setRight() error {
	var errs []error
	for _, m := range n.w.Members {
		if m.Clock != nil {
			errs = append(errs, m.Clock.Set(0))
		}
	}
	return errors.Join(errs...)
}
