package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// Type says what happened. It is the type of the CloudEvent.
type Type string

// The types there are.
const (
	Stalled    Type = "dev.amends.transaction.stalled"     // it waits for a participant for longer than it should
	Parked     Type = "dev.amends.transaction.parked"      // only a person can decide how it goes on
	Resumed    Type = "dev.amends.transaction.resumed"     // neither of the two any longer, be it because it ended
	Committed  Type = "dev.amends.transaction.committed"   // the end: every effect is in place
	RolledBack Type = "dev.amends.transaction.rolled_back" // the end: every effect is undone
	Abandoned  Type = "dev.amends.transaction.abandoned"   // the end, forced by an operator: effects may remain
	Operated   Type = "dev.amends.transaction.operated"    // an operator acted: Event.Verb, Actor and Reason
)

// AlertTypes are those that a pager wants: Stalled and Parked open an alert,
// Resumed closes it.
func AlertTypes() []Type { return []Type{Stalled, Parked, Resumed} }

// AllTypes are all types.
func AllTypes() []Type {
	return []Type{Stalled, Parked, Resumed, Committed, RolledBack, Abandoned, Operated}
}

// word is the last part of a type.
func (t Type) word() string { return string(t[strings.LastIndexByte(string(t), '.')+1:]) }

// alert reports whether a type opens or closes an alert.
func (t Type) alert() bool { return t == Stalled || t == Parked || t == Resumed }

// Event is one thing that happened to a transaction. What is not known or does
// not apply is empty.
type Event struct {
	// ID is unique within Source: the gid, Seq and the last word of Type. An
	// event that is sent again has the same.
	ID string `json:"-"`
	// Source is Config.Source and, outside of the default namespace, "/" and
	// the namespace.
	Source    string            `json:"-"`
	Type      Type              `json:"-"`
	Time      time.Time         `json:"-"` // when it happened, by the coordinator's clock
	Namespace string            `json:"namespace"`
	GID       string            `json:"gid"`
	Seq       int64             `json:"seq"` // of the audit event that it came with
	Kind      string            `json:"kind"`
	Name      string            `json:"name"` // the definition's
	Labels    map[string]string `json:"labels,omitempty"`
	State     string            `json:"state"`                // for example "ROLLING_BACK"
	WaitsFor  string            `json:"waits_for,omitempty"`  // the service, of Stalled and Parked
	Branch    string            `json:"branch,omitempty"`     // the step or branch concerned
	Verb      string            `json:"verb,omitempty"`       // of Operated, as in the audit trail
	Reason    string            `json:"reason,omitempty"`     // why; of Operated the operator's words
	LastError string            `json:"last_error,omitempty"` // of Stalled: the participant's last words
	Actor     string            `json:"actor,omitempty"`      // who, of Operated and Abandoned
}

// defaultSource begins Event.Source unless told otherwise.
const defaultSource = "amends"

// bulkKind is the store.Record.Kind of what is no transaction: a bulk of
// operators' verbs. Each transaction that it acts on has its own event.
const bulkKind = "bulk"

// alerting is what a transaction needs a person for: Stalled, Parked or "".
func alerting(rec *store.Record) Type {
	switch {
	case txn.State(rec.State) == txn.Parked:
		return Parked
	case rec.Stalled:
		return Stalled
	}
	return ""
}

// ending is the type of a transaction's end, or "".
func ending(rec *store.Record) Type {
	switch txn.State(rec.State) {
	case txn.Committed:
		return Committed
	case txn.RolledBack:
		return RolledBack
	case txn.Abandoned:
		return Abandoned
	}
	return ""
}

// detail is what the Data of an audit event may say.
type detail struct {
	State   string `json:"state"`
	Branch  string `json:"branch"`
	Outcome string `json:"outcome"`
	Message string `json:"message"`
	Actor   string `json:"actor"`
	Reason  string `json:"reason"`
}

// detailOf reads an audit event. Data that cannot be read says nothing: an
// alert with less in it is better than none.
func detailOf(ev *store.Event) detail {
	var d detail
	if err := json.Unmarshal(ev.Data, &d); err != nil {
		return detail{}
	}
	return d
}

// eventOf is what a record says about itself.
func eventOf(source string, rec *store.Record, t Type, seq int64, at time.Time) Event {
	// The store's key of a gid is the gid behind its namespace and a NUL, or in
	// the default namespace the gid alone.
	gid := rec.GID
	if rec.Namespace != "" {
		gid = strings.TrimPrefix(gid, rec.Namespace+"\x00")
		source += "/" + rec.Namespace
	}
	return Event{
		ID: fmt.Sprintf("%s/%d/%s", gid, seq, t.word()), Source: source, Type: t, Time: at.UTC(),
		Namespace: rec.Namespace, GID: gid, Seq: seq, Kind: rec.Kind, Name: rec.Name, Labels: rec.Labels,
		State: txn.State(rec.State).String(), Reason: rec.Reason,
	}
}

// operated are the operators' verbs among audit events.
func operated(source string, rec *store.Record, events []store.Event) []Event {
	var out []Event
	for i := range events {
		if d := detailOf(&events[i]); isVerb(&events[i], &d) {
			out = append(out, operatedBy(source, rec, &events[i], &d))
		}
	}
	return out
}

// isVerb tells what operators do from what clients and deadlines do under the
// same names: they give a reason.
func isVerb(ev *store.Event, d *detail) bool {
	switch ev.Type {
	case "retry", "skip", "complete", "fail", "abort", "abandon", "pause", "resume":
		return d.Reason != ""
	}
	return false
}

func operatedBy(source string, rec *store.Record, ev *store.Event, d *detail) Event {
	e := eventOf(source, rec, Operated, ev.Seq, ev.At)
	e.Verb, e.Branch, e.Reason, e.Actor, e.State = ev.Type, d.Branch, d.Reason, d.Actor, d.State
	return e
}

// ended is a transaction's end, after what operators did to it in the same
// commit.
func ended(source string, rec *store.Record, t Type, operated []Event) Event {
	e := eventOf(source, rec, t, rec.EventSeq, rec.FinishedAt)
	if last := len(operated) - 1; t == Abandoned && last >= 0 {
		e.Actor, e.Reason = operated[last].Actor, operated[last].Reason
	}
	return e
}
