package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// Command is one verb of an operator for one transaction.
type Command struct {
	Verb      amendsv1.Verb
	GID       string
	Branch    string // the step's or branch's name; of RETRY_NOW empty for all
	Reply     []byte // of COMPLETE_STEP
	Reason    string // for the audit trail
	Actor     string // who asks
	RequestID string // a repetition is answered as the first was; empty: none is known
	ETag      string // the version that the operator saw; empty: any

	ValidateOnly bool
}

// etag is what readers see of a record's version.
func etag(rec *store.Record) string { return strconv.FormatInt(rec.Version, 10) }

// Act does what an operator asks for and returns when it is durable, with its
// audit event. What is not legal where the transaction stands is
// ErrIllegalVerb and says what would be.
func (e *Engine) Act(ctx context.Context, c Command) (store.Record, error) {
	a, err := e.command(ctx, c.GID, func(w *worker, t *tx, say func(answer)) {
		w.expire(t, time.Now())
		if repeated, err := t.requests.check(c); repeated || err != nil {
			w.sayDurable(t, say, err)
			return
		}
		op, err := t.operation(c)
		if err == nil && !c.ValidateOnly {
			err = w.operate(t, c, op)
		}
		w.sayDurable(t, say, err)
	})
	return a.rec, err
}

// operation is a command in the machine's words.
type operation struct {
	verb   txn.Verb  // 0: pause or resume
	branch int       // or txn.All
	event  txn.Event // nil: the engine's own
}

// operation checks a command against where the transaction stands.
func (t *tx) operation(c Command) (operation, error) {
	if _, ok := t.m.(*bulkMachine); ok {
		return operation{}, notFound(t.rec.GID)
	}
	if c.ETag != "" && (t.dirty || c.ETag != etag(&t.rec)) {
		return operation{}, amendsv1.ErrETag.With("the transaction has moved on since etag %q: look at it again", c.ETag)
	}
	op := operation{branch: txn.All}
	if c.Branch != "" {
		if op.branch = t.m.find(c.Branch); op.branch < 0 {
			return op, amendsv1.ErrInvalidArgument.With("branch: the transaction has no step or branch %q", c.Branch)
		}
	}
	switch c.Verb {
	case amendsv1.Verb_VERB_PAUSE, amendsv1.Verb_VERB_RESUME:
		return op, t.pausable(c.Verb)
	case amendsv1.Verb_VERB_RETRY_NOW:
		op.verb, op.event = txn.VerbRetry, txn.TryAgain{Branch: op.branch}
	case amendsv1.Verb_VERB_SKIP_STEP:
		op.verb, op.event = txn.VerbSkip, txn.Skip{Branch: op.branch}
	case amendsv1.Verb_VERB_COMPLETE_STEP:
		op.verb, op.event = txn.VerbComplete, txn.Complete{Branch: op.branch, Reply: c.Reply}
	case amendsv1.Verb_VERB_FAIL_STEP:
		op.verb, op.event = txn.VerbFail, txn.Fail{Branch: op.branch, Message: c.Reason}
	case amendsv1.Verb_VERB_ABORT:
		op.verb, op.event = txn.VerbAbort, txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted, Message: c.Reason}}
	case amendsv1.Verb_VERB_ABANDON:
		op.verb, op.event = txn.VerbAbandon, txn.Abandon{Reason: txn.Reason{Code: txn.CodeAbandoned, Message: c.Reason}}
	default:
		return op, amendsv1.ErrInvalidArgument.With("verb %v is none that this coordinator knows", c.Verb)
	}
	if err := t.m.permits(op.branch, op.verb); err != nil {
		return op, illegalVerb(err)
	}
	return op, nil
}

func illegalVerb(err error) error {
	if errors.Is(err, txn.ErrIllegal) {
		return amendsv1.ErrIllegalVerb.With("%s", strings.TrimPrefix(err.Error(), txn.ErrIllegal.Error()+": "))
	}
	return amendsv1.ErrInvalidArgument.With("%v", err)
}

// pausable says why a transaction cannot be paused or resumed.
func (t *tx) pausable(v amendsv1.Verb) error {
	phase := t.m.phase()
	switch {
	case phase.Finished():
		return amendsv1.ErrIllegalVerb.With("the transaction is %s: it has ended, and nothing changes it", phase)
	case v == amendsv1.Verb_VERB_PAUSE && t.rec.Paused:
		return amendsv1.ErrIllegalVerb.With("the transaction is paused already; legal now: resume")
	case v == amendsv1.Verb_VERB_RESUME && !t.rec.Paused:
		return amendsv1.ErrIllegalVerb.With("the transaction is not paused; legal now: pause")
	}
	return nil
}

// pausing is the event of a pause or resume, which machines know nothing of.
type pausing struct{ verb string }

// EventType returns "pause" or "resume".
func (p pausing) EventType() string { return p.verb }

// operate carries out a command that is legal.
func (w *worker) operate(t *tx, c Command, op operation) error {
	next, ev := t.m, op.event
	switch c.Verb {
	case amendsv1.Verb_VERB_PAUSE:
		ev = pausing{"pause"}
	case amendsv1.Verb_VERB_RESUME:
		ev = pausing{"resume"}
	default:
		var err error
		if next, err = t.m.advance(ev); err != nil {
			return illegalVerb(err)
		}
	}
	d := detail{State: next.phase().String(), Branch: c.Branch, Actor: c.Actor, Reason: c.Reason, Request: c.RequestID}
	if err := w.become(t, next, ev, d); err != nil {
		return err
	}
	if op.verb == txn.VerbRetry {
		t.urgent = append(t.urgent, op.branch)
	}
	t.rec.Paused = t.rec.Paused && c.Verb != amendsv1.Verb_VERB_RESUME || c.Verb == amendsv1.Verb_VERB_PAUSE
	t.recall = true // what is still wanted goes out again
	t.requests.add(c)
	w.expire(t, time.Now()) // what was paused beyond its deadline, before a call goes out
	w.e.meters.verbs.Add(c.Verb)
	return nil
}

// requests are the last that came with an id, so that a repetition is known
// after a crash, too.
type requests []request

type request struct {
	ID     string `json:"id"`
	Digest []byte `json:"digest"`
}

// maxRequests is how many of a transaction are remembered.
const maxRequests = 16

// check reports whether a command was carried out before. An id that stands
// for another command is an error.
func (r requests) check(c Command) (bool, error) {
	for _, known := range r {
		if c.RequestID == "" || known.ID != c.RequestID {
			continue
		}
		if !bytes.Equal(known.Digest, c.digest()) {
			return false, amendsv1.ErrRequestConflict.With("request_id %q was used for another request: use another one", c.RequestID)
		}
		return true, nil
	}
	return false, nil
}

func (r *requests) add(c Command) {
	if c.RequestID == "" {
		return
	}
	if n := len(*r) + 1 - maxRequests; n > 0 {
		*r = (*r)[n:]
	}
	*r = append((*r)[:len(*r):len(*r)], request{ID: c.RequestID, Digest: c.digest()})
}

// digest tells a repeated command from another one.
func (c Command) digest() []byte {
	text, _ := json.Marshal([]any{c.Verb, c.Branch, c.Reply, c.Reason}) // always encodes
	sum := sha256.Sum256(text)
	return sum[:8]
}

// Legal returns what an operator can do to a transaction and to each of its
// branches. Its owner may know better, and refuse with a reason.
func (e *Engine) Legal(rec store.Record) (whole []amendsv1.Verb, branches [][]amendsv1.Verb, err error) {
	m, err := shown(&rec)
	if err != nil {
		return nil, nil, err
	}
	t := &tx{rec: rec, m: m}
	whole = verbs(m.legal(txn.All))
	for _, v := range []amendsv1.Verb{amendsv1.Verb_VERB_PAUSE, amendsv1.Verb_VERB_RESUME} {
		if t.pausable(v) == nil {
			whole = append(whole, v)
		}
	}
	for i := range m.branches() {
		branches = append(branches, verbs(m.legal(i)))
	}
	return whole, branches, nil
}

func verbs(legal []txn.Verb) []amendsv1.Verb {
	var out []amendsv1.Verb
	for _, v := range legal {
		out = append(out, wire.Verb(v))
	}
	return out
}
