package wire

import (
	"errors"
	"fmt"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// MaxTimeout is the longest time that a transaction may be given.
const MaxTimeout = 10 * 365 * 24 * time.Hour

// DefaultTCCTimeout is the time that a TCC transaction has when it names none.
const DefaultTCCTimeout = time.Minute

// SagaDefinition is what a request asks to run, validated. The error is an
// amendsv1.ErrInvalidDefinition that joins every mistake and names its step and
// field.
func SagaDefinition(req *amendsv1.StartSagaRequest) (*saga.Definition, error) {
	d := &saga.Definition{Name: req.GetName()}
	var errs []error
	if req.GetTimeout() != nil {
		timeout, err := fromTimeout(req.GetTimeout())
		d.Timeout, errs = timeout, append(errs, err)
	}
	steps := req.GetSteps()
	if len(steps) <= saga.MaxSteps { // Validate reports more
		index := stepIndex(steps)
		for i := range steps {
			step, err := sagaStep(steps, i, index)
			d.Steps, errs = append(d.Steps, step), append(errs, err)
		}
	} else {
		errs = append(errs, fmt.Errorf("steps: there are %d, at most %d are allowed", len(steps), saga.MaxSteps))
	}
	if err := errors.Join(errs...); err != nil { // with holes, Validate would report more than there is
		return nil, invalid(err)
	}
	if err := d.Validate(); err != nil {
		return nil, invalid(err)
	}
	return d, nil
}

// TCCDefinition is what a request asks to begin, validated. A timeout that is
// absent is DefaultTCCTimeout. The error is an amendsv1.ErrInvalidDefinition.
func TCCDefinition(req *amendsv1.BeginTccRequest) (*tcc.Definition, error) {
	d := &tcc.Definition{Name: req.GetName(), Timeout: DefaultTCCTimeout}
	if req.GetTimeout() != nil {
		timeout, err := fromTimeout(req.GetTimeout())
		if err != nil {
			return nil, invalid(err)
		}
		d.Timeout = timeout
	}
	if check := req.GetCheck(); check != nil {
		retry, err := FromRetry(check.GetRetry())
		if err == nil && check.GetAction() == "" {
			err = errors.New("check.action is empty: name the action that tells, or leave the check out")
		}
		if err != nil {
			return nil, invalid(err)
		}
		d.Check = tcc.CheckBack{Action: check.GetAction(), Retry: retry}
	}
	if err := d.Validate(); err != nil {
		return nil, invalid(err)
	}
	return d, nil
}

// TCCBranch is the branch that a request asks to try, validated. The error is
// an amendsv1.ErrInvalidArgument.
func TCCBranch(req *amendsv1.TryBranchRequest) (tcc.Branch, error) {
	retry, err := FromRetry(req.GetRetry())
	if err != nil {
		return tcc.Branch{}, amendsv1.ErrInvalidArgument.With("branch %q: %v", req.GetBranch(), err)
	}
	b := tcc.Branch{Name: req.GetBranch(), Action: req.GetAction(), Payload: req.GetPayload(), Retry: retry}
	if err := b.Validate(); err != nil {
		return tcc.Branch{}, amendsv1.ErrInvalidArgument.With("%v", err)
	}
	return b, nil
}

func invalid(err error) error { return amendsv1.ErrInvalidDefinition.With("%v", err) }

func fromTimeout(d *durationpb.Duration) (time.Duration, error) {
	timeout, err := FromDuration("timeout", d)
	switch {
	case err != nil:
		return 0, err
	case timeout <= 0:
		return 0, fmt.Errorf("timeout is %v: it must be positive; leave it out for the default", timeout)
	case timeout > MaxTimeout:
		return 0, fmt.Errorf("timeout is %v, at most %v are allowed", timeout, MaxTimeout)
	}
	return timeout, nil
}

// stepIndex maps each name to the first step that has it.
func stepIndex(steps []*amendsv1.SagaStep) map[string]int {
	index := make(map[string]int, len(steps))
	for i, s := range steps {
		if _, ok := index[s.GetName()]; !ok {
			index[s.GetName()] = i
		}
	}
	return index
}

func sagaStep(steps []*amendsv1.SagaStep, i int, index map[string]int) (saga.Step, error) {
	s := steps[i]
	step := saga.Step{Name: s.GetName(), Action: s.GetAction(), Payload: s.GetPayload()}
	var errs []error
	for _, name := range s.GetAfter() {
		earlier, err := afterIndex(name, i, index)
		step.After, errs = append(step.After, earlier), append(errs, err)
	}
	kind, ok := FromStepKind(s.GetKind())
	if !ok {
		errs = append(errs, fmt.Errorf("kind %d is none that this coordinator knows", s.GetKind()))
	}
	retry, err := FromRetry(s.GetRetry())
	step.Kind, step.Retry = kind, retry
	if err := errors.Join(append(errs, err)...); err != nil {
		return step, fmt.Errorf("steps[%d] %q: %w", i, s.GetName(), err)
	}
	return step, nil
}

func afterIndex(name string, self int, index map[string]int) (int, error) {
	at, ok := index[name]
	switch {
	case !ok:
		return 0, fmt.Errorf("after names %q, which is no step of this saga", name)
	case at == self:
		return 0, fmt.Errorf("after names %q, the step itself: a cycle cannot be honoured", name)
	case at > self:
		return 0, fmt.Errorf("after names %q, which comes later: "+
			"list a step behind those it comes after (a cycle cannot be honoured)", name)
	}
	return at, nil
}
