package model

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// Model is a system to be explored. S is all that can be known of it: two
// states that are equal have the same future.
type Model[S comparable] interface {
	// Init returns the state in which everything begins.
	Init() S
	// Next calls yield with all that can happen in s: what comes of it, and in
	// words what happens.
	Next(s S, yield Yield[S]) error
	// Check returns the promise that s breaks, or nil.
	Check(s S) error
	// Rests reports whether everything that was begun in s is done.
	Rests(s S) bool
	// Show describes s in one line.
	Show(s S) string
}

// Yield takes what can happen next: a state, and how it comes about, as a format
// with its arguments.
type Yield[S comparable] func(next S, what string, args ...int)

// ErrScope says that a model has more states than were allowed.
var ErrScope = errors.New("model: more states than allowed: narrow the scope, or allow more")

// ViolationError is a promise that was broken, and the shortest way there.
type ViolationError struct {
	Promise error
	Trail   []string // what happened, in order, each with the state that came of it
}

// Error returns the promise and the trail, a line for each thing that happened.
func (v *ViolationError) Error() string {
	return fmt.Sprintf("%v, after %d things happened:\n%s", v.Promise, len(v.Trail), strings.Join(v.Trail, "\n"))
}

// Unwrap returns the promise.
func (v *ViolationError) Unwrap() error { return v.Promise }

// Count says how much was explored.
type Count struct {
	States, Transitions int
	Depth               int // the most things that happen before nothing new does
}

// Explore goes through all that m can do, nearest first. The error is a
// *ViolationError for a promise that some state breaks, or for a state from which m
// never comes to rest any more, whatever happens; ErrScope when there are more
// states than limit.
func Explore[S comparable](m Model[S], limit int) (Count, error) {
	x := &explorer[S]{m: m, seed: maphash.MakeSeed(), index: map[uint64]int32{}}
	x.meet(m.Init(), -1)
	for at := 0; at < len(x.states); at++ {
		if err := m.Check(x.states[at]); err != nil {
			return x.count(), &ViolationError{Promise: err, Trail: x.trail(at)}
		}
		if len(x.states) > limit {
			return x.count(), fmt.Errorf("%w: %d", ErrScope, limit)
		}
		x.first = append(x.first, len(x.edges))
		err := m.Next(x.states[at], func(next S, _ string, _ ...int) {
			x.edges = append(x.edges, x.meet(next, int32(at)))
		})
		if err != nil {
			return x.count(), &ViolationError{Promise: err, Trail: x.trail(at)}
		}
	}
	x.first = append(x.first, len(x.edges))
	if at := x.restless(); at >= 0 {
		return x.count(), &ViolationError{Promise: errors.New("it can never be finished any more"), Trail: x.trail(at)}
	}
	return x.count(), nil
}

// explorer is what is known of a model. States are numbered as they are met,
// and edges[first[i]:first[i+1]] are those that follow on state i.
type explorer[S comparable] struct {
	m      Model[S]
	seed   maphash.Seed
	index  map[uint64]int32 // by hash; the next number up when another state has it
	states []S
	parent []int32 // from where it was met first
	edges  []int32
	first  []int
}

// meet returns the number of s, a new one if it is new.
func (x *explorer[S]) meet(s S, from int32) int32 {
	h := maphash.Comparable(x.seed, s)
	for ; ; h++ {
		n, met := x.index[h]
		if !met {
			break
		}
		if x.states[n] == s {
			return n
		}
	}
	n := int32(len(x.states))
	x.index[h] = n
	x.states = append(x.states, s)
	x.parent = append(x.parent, from)
	return n
}

// restless returns the first state from which none that rests can be reached,
// -1 when there is none.
func (x *explorer[S]) restless() int {
	n := len(x.states)
	start := make([]int32, n+1) // back[start[i]:start[i+1]] lead to state i
	for _, to := range x.edges {
		start[to+1]++
	}
	for i := range n {
		start[i+1] += start[i]
	}
	back, fill := make([]int32, len(x.edges)), slices.Clone(start)
	for from := range n {
		for _, to := range x.edges[x.first[from]:x.first[from+1]] {
			back[fill[to]] = int32(from)
			fill[to]++
		}
	}
	reaches := make([]bool, n)
	var todo []int32
	for i, s := range x.states {
		if x.m.Rests(s) {
			reaches[i] = true
			todo = append(todo, int32(i))
		}
	}
	for len(todo) > 0 {
		to := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range back[start[to]:start[to+1]] {
			if !reaches[from] {
				reaches[from] = true
				todo = append(todo, from)
			}
		}
	}
	return slices.Index(reaches, false)
}

// path returns the states on the shortest way to state at.
func (x *explorer[S]) path(at int) []S {
	var path []S
	for n := int32(at); n >= 0; n = x.parent[n] {
		path = append(path, x.states[n])
	}
	slices.Reverse(path)
	return path
}

// trail tells how state at comes about. What happened is not kept with each
// state, but asked again.
func (x *explorer[S]) trail(at int) []string {
	path := x.path(at)
	var lines []string
	for i, s := range path[1:] {
		what := "?"
		_ = x.m.Next(path[i], func(next S, format string, args ...int) { // it was explored without an error
			if next == s && what == "?" {
				what = fmt.Sprintf(format, boxed(args)...)
			}
		})
		lines = append(lines, fmt.Sprintf("%3d. %-64s %s", i+1, what, x.m.Show(s)))
	}
	return lines
}

func boxed(args []int) []any {
	all := make([]any, len(args))
	for i, a := range args {
		all[i] = a
	}
	return all
}

func (x *explorer[S]) count() Count {
	c := Count{States: len(x.states), Transitions: len(x.edges)}
	if c.States > 0 {
		c.Depth = len(x.path(c.States-1)) - 1
	}
	return c
}
