package wire

import (
	"fmt"
	"strconv"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Transaction is a record on the wire, with its gid as callers know it. With
// branches, it decodes the record's definition and state, which a list does not
// have; with full, branches hold their requests and replies. Verbs are left
// out: the engine knows them. The error names a record that cannot be decoded.
func Transaction(rec store.Record, full, branches bool) (*amendsv1.Transaction, error) {
	namespace, gid := Split(rec.GID)
	t := &amendsv1.Transaction{
		Gid:        amendsv1.ValidText(gid),
		Kind:       Kind(rec.Kind),
		Name:       amendsv1.ValidText(rec.Name),
		State:      State(txn.State(rec.State)),
		Paused:     rec.Paused,
		Labels:     validLabels(rec.Labels),
		CreateTime: Timestamp(rec.CreatedAt),
		UpdateTime: Timestamp(rec.UpdatedAt),
		FinishTime: Timestamp(rec.FinishedAt),
		Deadline:   Timestamp(rec.Deadline),
		NextTime:   Timestamp(rec.NextAt),
		Etag:       strconv.FormatInt(rec.Version, 10),
		Namespace:  amendsv1.ValidText(namespace),
		Stalled:    rec.Stalled,
		WaitsFor:   amendsv1.ValidText(rec.WaitsFor),
		EventSeq:   rec.EventSeq,
		EventHash:  rec.EventHash,
	}
	if rec.Reason != "" {
		t.Cause = cause(ParseReason(rec.Reason))
	}
	if !branches {
		return t, nil
	}
	if err := decodeInto(t, rec, full); err != nil {
		return nil, fmt.Errorf("wire: transaction %q: %w", gid, err)
	}
	return t, nil
}

func cause(r txn.Reason) *amendsv1.Cause {
	return &amendsv1.Cause{
		Branch: amendsv1.ValidText(r.Branch), Code: amendsv1.ValidText(r.Code), Message: amendsv1.ValidText(r.Message),
	}
}

// decodeInto adds what only the definition and the state tell.
func decodeInto(t *amendsv1.Transaction, rec store.Record, full bool) error {
	state, _, err := SplitBody(rec.Body)
	if err != nil {
		return err
	}
	switch rec.Kind {
	case KindSaga:
		d, err := saga.DecodeDefinition(rec.Definition)
		if err != nil {
			return fmt.Errorf("definition: %w", err)
		}
		s, err := saga.DecodeState(d, state)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		t.Branches = withNext(sagaBranches(d, s, full), rec, s.Outstanding(d))
		return nil
	case KindTCC:
		d, err := tcc.DecodeDefinition(rec.Definition)
		if err != nil {
			return fmt.Errorf("definition: %w", err)
		}
		s, err := tcc.DecodeState(d, state)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		t.Branches = withNext(tccBranches(s, full), rec, s.Outstanding(d))
		if c := s.Checking; c != nil {
			t.Check = &amendsv1.Check{
				Action: amendsv1.ValidText(d.Check.Action), Attempt: int32(c.Attempt), Error: amendsv1.ValidText(c.Error),
			}
		}
		return nil
	}
	return fmt.Errorf("kind %q is neither saga nor tcc", rec.Kind)
}

// withNext sets when a branch is tried again, where the record tells. It has
// one time for the whole transaction, the earliest of all, which a call that is
// under way makes that of its last write. So a later one is a retry's, unless
// it is the deadline or the time at which it would count as stalled; and whose
// it is can be told of a single call only. Once it is past, that attempt is
// under way.
func withNext(branches []*amendsv1.Branch, rec store.Record, calls []txn.Call) []*amendsv1.Branch {
	if len(calls) == 1 && calls[0].Branch != txn.All && rec.Stalled && !rec.Paused && rec.NextAt.After(rec.UpdatedAt) && !rec.NextAt.Equal(rec.Deadline) {
		branches[calls[0].Branch].NextTime = Timestamp(rec.NextAt)
	}
	return branches
}

func sagaBranches(d *saga.Definition, s saga.State, full bool) []*amendsv1.Branch {
	branches := make([]*amendsv1.Branch, len(d.Steps))
	for i, step := range d.Steps {
		st := s.Steps[i]
		b := &amendsv1.Branch{
			Name: amendsv1.ValidText(step.Name), Action: amendsv1.ValidText(step.Action),
			Phase: st.Phase.String(), Attempt: int32(st.Attempt), Error: amendsv1.ValidText(st.Error),
			Kind: StepKind(step.Kind),
		}
		for _, earlier := range step.After {
			b.After = append(b.After, amendsv1.ValidText(d.Steps[earlier].Name))
		}
		if full {
			b.Request, b.Reply = step.Payload, st.Reply
		}
		branches[i] = b
	}
	return branches
}

func tccBranches(s tcc.State, full bool) []*amendsv1.Branch {
	branches := make([]*amendsv1.Branch, len(s.Branches))
	for i, st := range s.Branches {
		b := &amendsv1.Branch{
			Name: amendsv1.ValidText(st.Name), Action: amendsv1.ValidText(st.Action),
			Phase: st.Phase.String(), Attempt: int32(st.Attempt), Error: amendsv1.ValidText(st.Error),
		}
		if full {
			b.Request, b.Reply = st.Payload, st.Reply
		}
		branches[i] = b
	}
	return branches
}

func validLabels(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	valid := make(map[string]string, len(labels))
	for k, v := range labels {
		valid[amendsv1.ValidText(k)] = amendsv1.ValidText(v)
	}
	return valid
}

// Timestamp is t on the wire; the zero time is absent.
func Timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
