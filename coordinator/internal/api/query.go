package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// fields are what a filter may name, for errors.
const fields = "state, kind, name, paused, unfinished, stalled, participant, create_time, update_time, labels.KEY"

// unfinishedStates is how many states are no end.
const unfinishedStates = 4

// tick is the resolution of a store's times.
const tick = time.Microsecond

// parseQuery turns a filter into a query. Errors are ErrFilter; those of a
// field that is unknown name the known ones.
func parseQuery(filter string) (store.Query, error) {
	terms, err := parseFilter(filter)
	if err != nil {
		return store.Query{}, err
	}
	b := queryBuilder{}
	for _, t := range terms {
		if err := b.add(t); err != nil {
			return store.Query{}, amendsv1.ErrFilter.With("%s %s %q: %v", t.field, t.op, t.literal, err).
				WithMetadata("field", t.field)
		}
	}
	return b.query(), nil
}

// selected is what a filter selects in a namespace.
func selected(namespace, filter string) (store.Query, error) {
	q, err := parseQuery(filter)
	q.Namespace = &namespace
	return q, err
}

type queryBuilder struct {
	q store.Query
}

func (b *queryBuilder) query() store.Query {
	if b.q.Unfinished && len(b.q.States) == unfinishedStates {
		b.q.States = nil // all of them: Unfinished says it
	}
	return b.q
}

// add narrows the query by a term. Terms that exclude each other are an error:
// a store's query cannot say "nothing", and nobody means it.
func (b *queryBuilder) add(t term) error {
	switch t.field {
	case "state":
		return b.state(t)
	case "kind":
		return b.kind(t)
	case "name":
		return b.name(t)
	case "paused":
		return flag(&b.q.Paused, t)
	case "unfinished":
		return b.unfinished(t)
	case "stalled":
		return flag(&b.q.Stalled, t)
	case "participant":
		return b.participant(t)
	case "create_time":
		return b.createTime(t)
	case "update_time":
		return b.updateTime(t)
	}
	if key, ok := strings.CutPrefix(t.field, "labels."); ok {
		return b.label(key, t)
	}
	return fmt.Errorf("no such field; the fields are %s", fields)
}

func takes(t term, ops ...string) error {
	if slices.Contains(ops, t.op) {
		return nil
	}
	return fmt.Errorf("this field takes %s only", strings.Join(ops, " "))
}

func contradicts() error { return fmt.Errorf("no transaction can match this and the terms before it") }

func (b *queryBuilder) state(t term) error {
	s, err := txn.ParseState(t.literal)
	if err != nil {
		return fmt.Errorf("the states are %s", strings.Join(stateNames(), ", "))
	}
	if err := takes(t, "=", "!="); err != nil {
		return err
	}
	return b.keepStates(func(other txn.State) bool { return (other == s) == (t.op == "=") })
}

func stateNames() []string {
	var names []string
	for s := txn.Running; s.Valid(); s++ {
		names = append(names, s.String())
	}
	return names
}

// keepStates narrows the states to those that satisfy keep.
func (b *queryBuilder) keepStates(keep func(txn.State) bool) error {
	old, kept := b.q.States, []uint8(nil)
	for s := txn.Running; s.Valid(); s++ {
		if keep(s) && (old == nil || slices.Contains(old, uint8(s))) {
			kept = append(kept, uint8(s))
		}
	}
	if len(kept) == 0 {
		return contradicts()
	}
	b.q.States = kept
	return nil
}

func (b *queryBuilder) kind(t term) error {
	if err := takes(t, "=", "!="); err != nil {
		return err
	}
	kind := t.literal
	switch {
	case kind != wire.KindSaga && kind != wire.KindTCC:
		return fmt.Errorf("the kinds are %s and %s", wire.KindSaga, wire.KindTCC)
	case t.op == "!=" && kind == wire.KindSaga:
		kind = wire.KindTCC
	case t.op == "!=":
		kind = wire.KindSaga
	}
	return only(&b.q.Kind, kind)
}

func (b *queryBuilder) name(t term) error {
	if err := takes(t, "="); err != nil {
		return err
	}
	if t.literal == "" {
		return fmt.Errorf("every transaction has a name; leave the term out to match all")
	}
	return only(&b.q.Name, t.literal)
}

// only sets a value that may not be set to another one already.
func only(to *string, value string) error {
	if *to != "" && *to != value {
		return contradicts()
	}
	*to = value
	return nil
}

// boolean reads a truth value, turned round by !=.
func boolean(t term) (bool, error) {
	if err := takes(t, "=", "!="); err != nil {
		return false, err
	}
	if t.literal != "true" && t.literal != "false" {
		return false, fmt.Errorf("the values are true and false")
	}
	return (t.literal == "true") == (t.op == "="), nil
}

// flag sets one that may not be set to the other value already.
func flag(to **bool, t term) error {
	v, err := boolean(t)
	if err != nil {
		return err
	}
	if *to != nil && **to != v {
		return contradicts()
	}
	*to = &v
	return nil
}

func (b *queryBuilder) participant(t term) error {
	if err := takes(t, "="); err != nil {
		return err
	}
	if t.literal == "" {
		return fmt.Errorf("write the name of a service; stalled = true finds what waits for any")
	}
	return only(&b.q.WaitsFor, t.literal)
}

func (b *queryBuilder) unfinished(t term) error {
	v, err := boolean(t)
	if err != nil {
		return err
	}
	b.q.Unfinished = b.q.Unfinished || v
	return b.keepStates(func(s txn.State) bool { return s.Finished() != v })
}

func (b *queryBuilder) createTime(t term) error {
	from, until, err := span(t)
	if err != nil {
		return err
	}
	if from.After(b.q.CreatedFrom) {
		b.q.CreatedFrom = from
	}
	b.q.CreatedUntil = earlier(b.q.CreatedUntil, until)
	if !b.q.CreatedUntil.IsZero() && !b.q.CreatedFrom.Before(b.q.CreatedUntil) {
		return contradicts()
	}
	return nil
}

func (b *queryBuilder) updateTime(t term) error {
	if err := takes(t, "<", "<="); err != nil {
		return err
	}
	_, until, err := span(t)
	if err != nil {
		return err
	}
	b.q.UpdatedUntil = earlier(b.q.UpdatedUntil, until)
	return nil
}

// span is the interval that a comparison with a time leaves, from inclusive,
// until exclusive, in ticks of the store's clock; zero: no bound.
func span(t term) (from, until time.Time, err error) {
	if err := takes(t, "<", "<=", ">", ">="); err != nil {
		return from, until, err
	}
	at, err := time.Parse(time.RFC3339Nano, t.literal)
	if err != nil {
		return from, until, fmt.Errorf(`write times like "2026-11-01T00:00:00Z"`)
	}
	at = at.UTC()
	if at.Year() < 1970 || at.Year() > 9999 {
		return from, until, fmt.Errorf("years are 1970 to 9999")
	}
	floor := at.Truncate(tick)
	ceil := floor
	if floor.Before(at) {
		ceil = floor.Add(tick)
	}
	switch t.op {
	case "<":
		return from, ceil, nil
	case "<=":
		return from, floor.Add(tick), nil
	case ">":
		return floor.Add(tick), until, nil
	default:
		return ceil, until, nil
	}
}

// earlier is the earlier of two bounds of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (b *queryBuilder) label(key string, t term) error {
	if err := takes(t, "="); err != nil {
		return err
	}
	if len(key) > maxLabelKey || !labelKey.MatchString(key) {
		return fmt.Errorf("a label's key is made of a-z, 0-9 and _, begins with a letter and has at most %d bytes", maxLabelKey)
	}
	if old, ok := b.q.Labels[key]; ok && old != t.literal {
		return contradicts()
	}
	if b.q.Labels == nil {
		b.q.Labels = map[string]string{}
	}
	b.q.Labels[key] = t.literal
	return nil
}
