package dispatch

import (
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// protocolVersion is the version of participant.proto that we speak.
const protocolVersion = 1

// checkHello reports why a hello cannot be honoured.
func checkHello(hello *amendsv1.Hello, maxCapacity int) error {
	if v := hello.GetProtocolVersion(); v != protocolVersion {
		return amendsv1.ErrProtocolVersion.With(
			"hello.protocol_version is %d, this coordinator speaks %d: use an SDK of the same release", v, protocolVersion)
	}
	bad := func(format string, args ...any) error { return amendsv1.ErrInvalidArgument.With(format, args...) }
	if err := txn.CheckName("hello.service", hello.GetService()); err != nil {
		return bad("%v", err)
	}
	if hello.GetInstance() != "" {
		if err := txn.CheckName("hello.instance", hello.GetInstance()); err != nil {
			return bad("%v", err)
		}
	}
	if c := int(hello.GetCapacity()); c < 0 || c > maxCapacity {
		return bad("hello.capacity is %d, want 0 (%d) to %d", c, defaultCapacity, maxCapacity)
	}
	if len(hello.GetActions()) == 0 {
		return bad("hello.actions is empty: service %q offers nothing", hello.GetService())
	}
	for i, action := range hello.GetActions() {
		field := fmt.Sprintf("hello.actions[%d]", i)
		if err := txn.CheckAction(field, action); err != nil {
			return bad("%v", err)
		}
		if service, verb := txn.SplitAction(action); service != hello.GetService() {
			return bad("%s is %q, which belongs to service %q: service %q offers only its own, such as %q",
				field, action, service, hello.GetService(), hello.GetService()+"."+verb)
		}
	}
	return nil
}

func wireCall(c Call) *amendsv1.Call {
	_, gid := wire.Split(c.GID)
	w := &amendsv1.Call{
		Gid:     gid,
		Branch:  c.Name,
		Index:   int32(c.Branch),
		Op:      amendsv1.Op(c.Op), // the numbers are the same, as a test checks
		Action:  c.Action,
		Attempt: int32(c.Attempt),
		Payload: c.Payload,
		Timeout: durationpb.New(callTimeout(c)),

		Traceparent: c.Trace,
	}
	for _, r := range c.Replies {
		w.Replies = append(w.Replies, &amendsv1.StepReply{Branch: r.Branch, Action: r.Action, Body: r.Body})
	}
	if !c.Expires.IsZero() {
		w.ExpireTime = timestamppb.New(c.Expires)
	}
	return w
}

// key tells the calls on a stream apart.
type key struct {
	gid     string
	branch  int
	op      txn.Op
	attempt int
}

func (c Call) key() key { return key{c.GID, c.Branch, c.Op, c.Attempt} }

func outcomeKey(namespace string, o *amendsv1.Outcome) key {
	op := txn.Op(0) // of no call
	if n := o.GetOp(); n >= amendsv1.Op_OP_DO && n <= amendsv1.Op_OP_CHECK {
		op = txn.Op(n)
	}
	return key{wire.Key(namespace, o.GetGid()), int(o.GetIndex()), op, int(o.GetAttempt())}
}

// answer turns what a participant said about a call into its outcome. A code
// that we do not know may mean anything: Unknown.
func answer(c Call, o *amendsv1.Outcome) Outcome {
	out := unknown(c, o.GetMessage())
	switch o.GetCode() {
	case amendsv1.OutcomeCode_OUTCOME_CODE_OK:
		out.Outcome, out.Message, out.Reply, out.Recorded = txn.OK, "", o.GetReply(), o.GetRecorded()
	case amendsv1.OutcomeCode_OUTCOME_CODE_REFUSED:
		out.Outcome, out.Reply = txn.Refused, o.GetReply() // a refused undo of a pivot says what the pivot replied
	case amendsv1.OutcomeCode_OUTCOME_CODE_UNKNOWN:
	default:
		out.Message = fmt.Sprintf("the participant sent the outcome code %d, which this coordinator does not know", o.GetCode())
	}
	return out
}

// bodySize is about what a call takes on the wire.
func bodySize(c Call) int {
	n := len(c.Payload)
	for _, r := range c.Replies {
		n += len(r.Body)
	}
	return n
}

// kind names a message for an error.
func kind(m *amendsv1.AttendRequest) string {
	switch m.GetMessage().(type) {
	case *amendsv1.AttendRequest_Hello:
		return "a hello"
	case *amendsv1.AttendRequest_Outcomes:
		return "outcomes"
	case *amendsv1.AttendRequest_Ping:
		return "a ping"
	case *amendsv1.AttendRequest_Drain:
		return "a drain"
	}
	return "empty"
}
