package saga

import (
	"errors"
	"slices"
	"time"
)

// Saga is a saga in Go code: a function from an input to a Definition.
type Saga[In any] struct {
	name string
	fn   func(b *Builder, in In)
}

// Define names a saga. fn runs once for each start, in the process that starts
// it, and describes the steps; it may branch and loop on its input. Build
// reports an illegal name or a nil fn.
func Define[In any](name string, fn func(b *Builder, in In)) Saga[In] {
	return Saga[In]{name: name, fn: fn}
}

// Name returns the saga's name.
func (s Saga[In]) Name() string { return s.name }

// Build runs the saga's function on in. It returns every mistake, joined, in
// an error that wraps ErrInvalidDefinition.
func (s Saga[In]) Build(in In) (*Definition, error) {
	b := &Builder{def: Definition{Name: s.name}, index: make(map[string]int)}
	if s.fn == nil {
		return nil, b.def.invalid([]error{errors.New("the saga has no function: make it with saga.Define")})
	}
	s.fn(b, in)
	if err := b.def.invalid(slices.Concat(b.errs, b.def.mistakes(), b.def.retriableMistakes())); err != nil {
		return nil, err
	}
	return &b.def, nil
}

// Builder collects the steps of one run. It belongs to the function that was
// given to Define, for the time of its call.
type Builder struct {
	def   Definition
	index map[string]int // of the first step with that name
	errs  []error
}

// Step adds a step that calls r. Unless After says otherwise it starts when
// the step added before it is done.
func (b *Builder) Step(name string, r Request) *StepBuilder {
	i := len(b.def.Steps)
	st := Step{Name: name, Action: r.action, Payload: r.payload, Retry: r.retry}
	if i > 0 {
		st.After = []int{i - 1}
	}
	b.def.Steps = append(b.def.Steps, st)
	if _, taken := b.index[name]; !taken {
		b.index[name] = i
	}
	if r.err != nil {
		b.errs = append(b.errs, b.def.wrong(i, "%w", r.err))
	}
	return &StepBuilder{b: b, i: i}
}

// Timeout makes the saga turn back when it has not committed after d. Without
// it, or with 0, it never does so by itself.
func (b *Builder) Timeout(d time.Duration) { b.def.Timeout = d }

// StepBuilder says more about a step. Its methods return it, to be chained.
type StepBuilder struct {
	b *Builder
	i int
}

func (s *StepBuilder) step() *Step { return &s.b.def.Steps[s.i] }

// After makes the step wait for the named steps, which must have been added
// before it. With no names it starts at once.
func (s *StepBuilder) After(names ...string) *StepBuilder {
	after := make([]int, 0, len(names))
	for _, name := range names {
		j, known := s.b.index[name]
		if !known || j >= s.i {
			s.b.errs = append(s.b.errs, s.b.def.wrong(s.i,
				"after names %q, which is no earlier step: add that one first (a cycle cannot be honoured)", name))
			continue
		}
		after = append(after, j)
	}
	if len(after) == 0 {
		after = nil // as it is decoded
	}
	s.step().After = after
	return s
}

// Pivot makes the step the point of no return.
func (s *StepBuilder) Pivot() *StepBuilder { return s.kind(Pivot) }

// Retriable says that the step has nothing to undo: it comes after the pivot,
// from where the saga only goes forward.
func (s *StepBuilder) Retriable() *StepBuilder { return s.kind(Retriable) }

func (s *StepBuilder) kind(k Kind) *StepBuilder {
	if old := s.step().Kind; old != Compensatable && old != k {
		s.b.errs = append(s.b.errs, s.b.def.wrong(s.i, "kind is both %s and %s: choose one", old, k))
	}
	s.step().Kind = k
	return s
}

// Retry replaces the action's retry policy for this step.
func (s *StepBuilder) Retry(r Retry) *StepBuilder {
	s.step().Retry = r
	return s
}

// Attempts bounds how often the step is called before the saga turns back; 0
// is no bound.
func (s *StepBuilder) Attempts(n int) *StepBuilder {
	s.step().Retry.Attempts = n
	return s
}

// CallTimeout says how long one call may take; 0 is 10 s.
func (s *StepBuilder) CallTimeout(d time.Duration) *StepBuilder {
	s.step().Retry.CallTimeout = d
	return s
}
