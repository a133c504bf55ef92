package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/tcc"
)

const service = "bench"

// entry is a step's payload.
type entry struct {
	Account int    `json:"account"`
	Refuse  bool   `json:"refuse,omitempty"`
	Pad     string `json:"pad,omitempty"`
}

type done struct{}

// input is a saga's.
type input struct {
	account int // of the first step; the others follow
	refuse  bool
}

// sagaOf is the saga of a configuration.
func sagaOf(cfg *Config) saga.Saga[input] {
	pad := strings.Repeat("x", cfg.Payload)
	return saga.Define("bench", func(b *saga.Builder, in input) {
		for i := range cfg.Steps {
			e := entry{Account: in.account + i, Pad: pad, Refuse: in.refuse && i == cfg.Steps-1}
			step := b.Step(fmt.Sprintf("step-%d", i), move.With(e))
			if cfg.Parallel {
				step.After()
			}
		}
	})
}

var (
	move    = saga.NewAction[entry, done](service + ".move")
	reserve = tcc.NewAction[entry, done](service + ".reserve")
)

// runSagas has each client change accounts of its own.
func runSagas(ctx context.Context, r *rig) (Result, error) {
	return r.sagas(ctx, func(client int) int { return client * r.cfg.Steps })
}

// runHotKey has all clients change the same accounts, in participants that write:
// they wait for each other's rows.
func runHotKey(ctx context.Context, r *rig) (Result, error) {
	writing := *r.cfg
	writing.Guard = true
	r.cfg = &writing
	return r.sagas(ctx, func(int) int { return 0 })
}

// sagas runs sagas to their end, of which first says the first account.
func (r *rig) sagas(ctx context.Context, first func(client int) int) (Result, error) {
	client, err := r.services(ctx)
	if err != nil {
		return Result{}, err
	}
	s := sagaOf(r.cfg)
	refusals := newShare(r.cfg.Refuse, r.cfg.Clients)
	res, err := r.loop(ctx, func(ctx context.Context, n int) error {
		return ended(sdk.RunSaga(ctx, client, s, input{account: first(n), refuse: refusals.next(n)}, nil))
	})
	res.Setup += r.shape("steps")
	return res, err
}

func runTCC(ctx context.Context, r *rig) (Result, error) {
	client, err := r.services(ctx)
	if err != nil {
		return Result{}, err
	}
	pad := strings.Repeat("x", r.cfg.Payload)
	refusals := newShare(r.cfg.Refuse, r.cfg.Clients)
	res, err := r.loop(ctx, func(ctx context.Context, n int) error {
		refuse := refusals.next(n)
		return ended(sdk.RunTCC(ctx, client, "bench", func(ctx context.Context, t *sdk.TCC) error {
			for i := range r.cfg.Steps {
				e := entry{Account: n*r.cfg.Steps + i, Pad: pad, Refuse: refuse && i == r.cfg.Steps-1}
				if _, err := sdk.TryNamed(ctx, t, fmt.Sprintf("branch-%d", i), reserve, e); err != nil {
					return err
				}
			}
			return nil
		}, nil))
	})
	res.Setup += r.shape("branches")
	return res, err
}

// ended counts a transaction that turned back as one that completed: it did
// what it should.
func ended(err error) error {
	var back *sdk.RolledBackError
	if errors.As(err, &back) {
		return nil
	}
	return err
}

func (r *rig) shape(of string) string {
	s := fmt.Sprintf(", %d %s", r.cfg.Steps, of)
	if r.cfg.Parallel {
		s += " at once"
	}
	if r.cfg.Payload > 0 {
		s += fmt.Sprintf(", %d bytes each", r.cfg.Payload)
	}
	if r.cfg.Refuse > 0 {
		s += fmt.Sprintf(", %v refused", r.cfg.Refuse)
	}
	if r.cfg.Guard {
		s += ", guard and writes in the participants"
	}
	return s
}

// share spreads what is refused evenly over each client's operations.
type share struct {
	of  float64
	sum []float64 // each its client's own
}

func newShare(of float64, clients int) *share { return &share{of: of, sum: make([]float64, clients)} }

func (s *share) next(client int) bool {
	s.sum[client] += s.of
	if s.sum[client] < 1 {
		return false
	}
	s.sum[client]--
	return true
}
