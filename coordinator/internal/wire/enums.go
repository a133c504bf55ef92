package wire

import (
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// The kinds of a store.Record.
const (
	KindSaga = "saga"
	KindTCC  = "tcc"
)

// pair is one row of a table: a word of ours and the same on the wire.
type pair[A, B comparable] struct {
	ours A
	wire B
}

type table[A, B comparable] []pair[A, B]

// to returns the zero value, which is UNSPECIFIED, for what is not in the table.
func (t table[A, B]) to(ours A) B {
	for _, p := range t {
		if p.ours == ours {
			return p.wire
		}
	}
	var unspecified B
	return unspecified
}

func (t table[A, B]) from(wire B) (A, bool) {
	for _, p := range t {
		if p.wire == wire {
			return p.ours, true
		}
	}
	var zero A
	return zero, false
}

// The tables. Each is one to one and whole, which the tests check against the
// enums' own descriptors.
var (
	states = table[txn.State, amendsv1.State]{
		{txn.Running, amendsv1.State_STATE_RUNNING},
		{txn.Committing, amendsv1.State_STATE_COMMITTING},
		{txn.RollingBack, amendsv1.State_STATE_ROLLING_BACK},
		{txn.Committed, amendsv1.State_STATE_COMMITTED},
		{txn.RolledBack, amendsv1.State_STATE_ROLLED_BACK},
		{txn.Parked, amendsv1.State_STATE_PARKED},
		{txn.Abandoned, amendsv1.State_STATE_ABANDONED},
	}
	kinds = table[string, amendsv1.Kind]{
		{KindSaga, amendsv1.Kind_KIND_SAGA},
		{KindTCC, amendsv1.Kind_KIND_TCC},
	}
	stepKinds = table[saga.Kind, amendsv1.StepKind]{
		{saga.Compensatable, amendsv1.StepKind_STEP_KIND_COMPENSATABLE},
		{saga.Pivot, amendsv1.StepKind_STEP_KIND_PIVOT},
		{saga.Retriable, amendsv1.StepKind_STEP_KIND_RETRIABLE},
	}
	ops = table[txn.Op, amendsv1.Op]{
		{txn.Do, amendsv1.Op_OP_DO},
		{txn.Undo, amendsv1.Op_OP_UNDO},
		{txn.Try, amendsv1.Op_OP_TRY},
		{txn.Confirm, amendsv1.Op_OP_CONFIRM},
		{txn.Cancel, amendsv1.Op_OP_CANCEL},
		{txn.Check, amendsv1.Op_OP_CHECK},
	}
	outcomes = table[txn.Outcome, amendsv1.OutcomeCode]{
		{txn.OK, amendsv1.OutcomeCode_OUTCOME_CODE_OK},
		{txn.Refused, amendsv1.OutcomeCode_OUTCOME_CODE_REFUSED},
		{txn.Unknown, amendsv1.OutcomeCode_OUTCOME_CODE_UNKNOWN},
	}
	// Pause and resume are not among them: no machine knows of them.
	verbs = table[txn.Verb, amendsv1.Verb]{
		{txn.VerbRetry, amendsv1.Verb_VERB_RETRY_NOW},
		{txn.VerbSkip, amendsv1.Verb_VERB_SKIP_STEP},
		{txn.VerbComplete, amendsv1.Verb_VERB_COMPLETE_STEP},
		{txn.VerbFail, amendsv1.Verb_VERB_FAIL_STEP},
		{txn.VerbAbort, amendsv1.Verb_VERB_ABORT},
		{txn.VerbAbandon, amendsv1.Verb_VERB_ABANDON},
	}
	// What the state of a bulk's record says.
	bulkStates = table[txn.State, amendsv1.BulkState]{
		{txn.Running, amendsv1.BulkState_BULK_STATE_RUNNING},
		{txn.Committed, amendsv1.BulkState_BULK_STATE_DONE},
		{txn.RolledBack, amendsv1.BulkState_BULK_STATE_CANCELLED},
	}
)

// State is s on the wire; UNSPECIFIED for a state that is none.
func State(s txn.State) amendsv1.State { return states.to(s) }

// FromState is the inverse of State; false for UNSPECIFIED and unknown numbers.
func FromState(s amendsv1.State) (txn.State, bool) { return states.from(s) }

// Kind is a record's kind on the wire; UNSPECIFIED for one that is none.
func Kind(kind string) amendsv1.Kind { return kinds.to(kind) }

// FromKind is the inverse of Kind; false for UNSPECIFIED and unknown numbers.
func FromKind(k amendsv1.Kind) (string, bool) { return kinds.from(k) }

// StepKind is k on the wire; UNSPECIFIED for a kind that is none.
func StepKind(k saga.Kind) amendsv1.StepKind { return stepKinds.to(k) }

// FromStepKind is the inverse of StepKind. UNSPECIFIED means compensatable;
// false for unknown numbers.
func FromStepKind(k amendsv1.StepKind) (saga.Kind, bool) {
	if k == amendsv1.StepKind_STEP_KIND_UNSPECIFIED {
		return saga.Compensatable, true
	}
	return stepKinds.from(k)
}

// Op is o on the wire; UNSPECIFIED for an operation that is none.
func Op(o txn.Op) amendsv1.Op { return ops.to(o) }

// FromOp is the inverse of Op; false for UNSPECIFIED and unknown numbers.
func FromOp(o amendsv1.Op) (txn.Op, bool) { return ops.from(o) }

// Outcome is o on the wire; UNSPECIFIED for an outcome that is none.
func Outcome(o txn.Outcome) amendsv1.OutcomeCode { return outcomes.to(o) }

// FromOutcome is the inverse of Outcome; false for UNSPECIFIED and unknown
// numbers.
func FromOutcome(o amendsv1.OutcomeCode) (txn.Outcome, bool) { return outcomes.from(o) }

// Verb is v on the wire; UNSPECIFIED for a verb that is none.
func Verb(v txn.Verb) amendsv1.Verb { return verbs.to(v) }

// FromVerb is the inverse of Verb; false for UNSPECIFIED, for unknown numbers,
// and for PAUSE and RESUME, which are about the flag beside a transaction's
// state.
func FromVerb(v amendsv1.Verb) (txn.Verb, bool) { return verbs.from(v) }

// BulkState is the state of a bulk whose record is in state s; UNSPECIFIED for
// a state that no bulk is in.
func BulkState(s txn.State) amendsv1.BulkState { return bulkStates.to(s) }

// FromBulkState is the inverse of BulkState; false for UNSPECIFIED and unknown
// numbers.
func FromBulkState(s amendsv1.BulkState) (txn.State, bool) { return bulkStates.from(s) }
