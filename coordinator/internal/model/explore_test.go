package model

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// walk counts from 0, by one or by two, and must not meet bad; from stuck on it
// goes nowhere.
type walk struct{ bad, stuck int }

func (walk) Init() int { return 0 }

func (m walk) Next(s int, yield Yield[int]) error {
	if s < 20 && s != m.stuck {
		yield(s+1, "one more than %d", s)
		yield(s+2, "two more than %d", s)
	}
	return nil
}

func (m walk) Check(s int) error {
	if s == m.bad {
		return errors.New("bad")
	}
	return nil
}

func (walk) Rests(s int) bool  { return s >= 20 }
func (walk) Show(s int) string { return strings.Repeat("#", s) }

func TestExplore(t *testing.T) {
	n, err := Explore(walk{bad: -1, stuck: -1}, 100)
	if want := (Count{States: 22, Transitions: 40, Depth: 11}); err != nil || n != want {
		t.Errorf("got %+v, %v, want %+v", n, err, want)
	}
	var v *ViolationError
	if _, err := Explore(walk{bad: 5, stuck: -1}, 100); !errors.As(err, &v) || len(v.Trail) != 3 {
		t.Errorf("got %v, want the shortest way to 5: three things", err)
	} else if !slices.ContainsFunc(v.Trail, func(line string) bool { return strings.Contains(line, "two more than") }) {
		t.Errorf("the trail does not say what happened:\n%v", v)
	}
	if _, err := Explore(walk{bad: -1, stuck: 19}, 100); !errors.As(err, &v) || !strings.Contains(v.Error(), "never be finished") {
		t.Errorf("got %v, want that it can never be finished from 19 on", err)
	}
	if _, err := Explore(walk{bad: -1, stuck: -1}, 10); !errors.Is(err, ErrScope) {
		t.Errorf("got %v, want ErrScope", err)
	}
}

func TestScopes(t *testing.T) {
	if _, err := NewRelay(FlowScope{Messages: 4}); err == nil || !strings.Contains(err.Error(), "Messages is 4") {
		t.Errorf("four messages: got %v", err)
	}
	if _, err := TCC(trip, slices.Repeat(branches(2), 2), Scope{}); err == nil {
		t.Error("four branches: got no error")
	}
}
