package engine

import (
	"encoding/json"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// detail is the Data of an audit event, as JSON. What it does not say is
// absent.
type detail struct {
	State   string `json:"state"`             // of the transaction, after the event
	Branch  string `json:"branch,omitempty"`  // the step or branch concerned
	Action  string `json:"action,omitempty"`  // of a try
	Op      string `json:"op,omitempty"`      // of a reply
	Attempt int    `json:"attempt,omitempty"` // of a reply
	Outcome string `json:"outcome,omitempty"` // of a reply
	Message string `json:"message,omitempty"` // the participant's, caller's or operator's words
	Code    string `json:"code,omitempty"`    // of an abort
	Actor   string `json:"actor,omitempty"`   // who asked, when a person or service did
	Reason  string `json:"reason,omitempty"`  // of an operator: why
	Request string `json:"request_id,omitempty"`
	Name    string `json:"name,omitempty"`   // of a start: the definition's
	Digest  []byte `json:"digest,omitempty"` // of a start: of its content

	Presumed []string `json:"presumed,omitempty"` // of what turned a saga back: steps undone without a record that they were called
}

func detailOf(ev txn.Event, m machine, actor string) detail {
	d := detail{State: m.phase().String(), Actor: actor}
	switch ev := ev.(type) {
	case txn.Replied:
		d.Branch, d.Op, d.Attempt = m.branch(ev.Branch), ev.Op.String(), ev.Attempt
		d.Outcome, d.Message = ev.Outcome.String(), ev.Message
	case txn.Abort:
		d.Code, d.Message, d.Branch = ev.Reason.Code, ev.Reason.Message, ev.Reason.Branch
	case tcc.Expire:
		d.Code, d.Message = ev.Reason.Code, ev.Reason.Message
	case tcc.Try:
		d.Branch, d.Action = ev.Branch.Name, ev.Branch.Action
	}
	return d
}

// presumed are the steps that a saga that turned back undoes, though nothing says
// that they were called: they may have been, ahead of what was stored.
func presumed(was, next machine) (steps []string) {
	a, ok := was.(*sagaMachine)
	if !ok {
		return nil
	}
	b := next.(*sagaMachine)
	if !b.turnedBack() {
		return nil
	}
	for i := range a.s.Steps {
		if a.s.Steps[i].Presumed && b.s.Steps[i].Attempt > 0 {
			steps = append(steps, a.branch(i))
		}
	}
	return steps
}

// note appends an audit event to what the transaction's next commit writes.
func (t *tx) note(kind string, d detail, now time.Time) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	ev := store.Event{GID: t.rec.GID, Seq: t.rec.EventSeq + 1, At: now, Type: kind, Data: data, Prev: t.rec.EventHash}
	ev.Hash = Hash(ev)
	t.rec.EventSeq, t.rec.EventHash = ev.Seq, ev.Hash
	t.events = append(t.events, ev)
	return nil
}

// Hash is the digest of an audit event, as auditors check it. The gid of an
// event is the qualified one, which is what the digest covers.
func Hash(ev store.Event) []byte {
	return amendsv1.AuditHash(ev.Prev, "", ev.GID, ev.Seq, ev.At, ev.Type, ev.Data)
}
