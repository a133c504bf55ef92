package forward

import (
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// target is what a request is about: a key, whose shard somebody owns, or a
// member by its name.
type target struct{ key, member string }

func (t target) known() bool { return t != target{} }

// owner is who is to answer, and whether that is this member. A member that is
// not known is for this one to refuse.
func (t target) owner(f *Forwarder) (owner store.Member, here bool) {
	if t.key != "" {
		return f.cluster.Route(t.key)
	}
	for _, m := range f.cluster.Members() {
		if m.Name == t.member {
			return m, m.Name == f.cfg.Self
		}
	}
	return store.Member{}, true
}

// route is how a method's requests find the member that answers them.
type route struct {
	// about is what a request is about; unknown: any member can answer.
	about func(namespace string, req proto.Message) target
	// complete gives a request that is to be repeated safely what it needs for
	// that.
	complete func(f *Forwarder, namespace string, req proto.Message) error
	answer   func() proto.Message // an empty one
	waits    bool                 // it may take long, and is ended when this member stops
}

// routes are the methods whose requests are forwarded. Every other one can be
// answered by any member.
var routes = map[string]route{
	amendsv1.TransactionService_StartSaga_FullMethodName:        {byGID, giveGID, fresh[amendsv1.StartSagaResponse], false},
	amendsv1.TransactionService_BeginTcc_FullMethodName:         {byGID, giveGID, fresh[amendsv1.BeginTccResponse], false},
	amendsv1.TransactionService_TryBranch_FullMethodName:        {byGID, asItIs, fresh[amendsv1.TryBranchResponse], true},
	amendsv1.TransactionService_CommitTcc_FullMethodName:        {byGID, asItIs, fresh[amendsv1.CommitTccResponse], false},
	amendsv1.TransactionService_AbortTransaction_FullMethodName: {byGID, asItIs, fresh[amendsv1.AbortTransactionResponse], false},
	amendsv1.TransactionService_WaitTransaction_FullMethodName:  {byGID, asItIs, fresh[amendsv1.WaitTransactionResponse], true},

	amendsv1.OperatorService_RetryNow_FullMethodName:     {byGID, giveID, fresh[amendsv1.RetryNowResponse], false},
	amendsv1.OperatorService_Abort_FullMethodName:        {byGID, giveID, fresh[amendsv1.AbortResponse], false},
	amendsv1.OperatorService_Pause_FullMethodName:        {byGID, giveID, fresh[amendsv1.PauseResponse], false},
	amendsv1.OperatorService_Resume_FullMethodName:       {byGID, giveID, fresh[amendsv1.ResumeResponse], false},
	amendsv1.OperatorService_SkipStep_FullMethodName:     {byGID, giveID, fresh[amendsv1.SkipStepResponse], false},
	amendsv1.OperatorService_CompleteStep_FullMethodName: {byGID, giveID, fresh[amendsv1.CompleteStepResponse], false},
	amendsv1.OperatorService_FailStep_FullMethodName:     {byGID, giveID, fresh[amendsv1.FailStepResponse], false},
	amendsv1.OperatorService_Abandon_FullMethodName:      {byGID, giveID, fresh[amendsv1.AbandonResponse], false},
	amendsv1.OperatorService_StartBulk_FullMethodName:    {byRequestID, giveBulkID, fresh[amendsv1.StartBulkResponse], false},
	amendsv1.OperatorService_CancelBulk_FullMethodName:   {byBulk, asItIs, fresh[amendsv1.CancelBulkResponse], false},

	amendsv1.ClusterService_DrainMember_FullMethodName:   {byMember, asItIs, fresh[amendsv1.DrainMemberResponse], true},
	amendsv1.ClusterService_UndrainMember_FullMethodName: {byMember, asItIs, fresh[amendsv1.UndrainMemberResponse], false},
}

// fresh is an empty message.
func fresh[T any, M interface {
	*T
	proto.Message
}]() proto.Message {
	return M(new(T))
}

func byGID(namespace string, req proto.Message) target {
	gid := req.(interface{ GetGid() string }).GetGid()
	if gid == "" { // which is refused, whoever looks at it
		return target{}
	}
	return target{key: wire.Key(namespace, gid)}
}

func byRequestID(namespace string, req proto.Message) target {
	r := req.(*amendsv1.StartBulkRequest)
	if r.GetValidateOnly() || r.GetRequestId() == "" { // it only counts
		return target{}
	}
	return target{key: wire.BulkKey(namespace, r.GetRequestId())}
}

func byBulk(namespace string, req proto.Message) target {
	return target{key: wire.BulkKey(namespace, req.(*amendsv1.CancelBulkRequest).GetId())}
}

func byMember(_ string, req proto.Message) target {
	return target{member: req.(interface{ GetName() string }).GetName()}
}

func asItIs(*Forwarder, string, proto.Message) error { return nil }

// enoughGIDs is how many gids are made to find one whose shard is here. Where
// every third is, it is found in all but one of 10,000 times.
const enoughGIDs = 24

// giveGID makes a gid for a start that has none, one of this member if it can.
func giveGID(f *Forwarder, namespace string, req proto.Message) error {
	gid := ""
	for i := 0; i < enoughGIDs && req.(interface{ GetGid() string }).GetGid() == ""; i++ {
		id, err := uuid.NewV7()
		if err != nil {
			return amendsv1.ErrInternal.With("forward: making a gid: %v", err)
		}
		gid = id.String()
		if _, here := f.cluster.Route(wire.Key(namespace, gid)); here {
			break
		}
	}
	if gid != "" {
		setText(req, "gid", gid)
	}
	return nil
}

// giveID makes a request_id for a verb that has none. In a cluster of one a verb
// without one is not repeated; that there is none is not known to be so.
func giveID(f *Forwarder, _ string, req proto.Message) error {
	r := req.(interface {
		GetRequestId() string
		GetValidateOnly() bool
	})
	if r.GetRequestId() != "" || r.GetValidateOnly() || len(f.cluster.Members()) == 1 {
		return nil
	}
	return giveRequestID(req)
}

func giveBulkID(_ *Forwarder, _ string, req proto.Message) error {
	r := req.(*amendsv1.StartBulkRequest)
	if r.GetRequestId() != "" || r.GetValidateOnly() {
		return nil
	}
	return giveRequestID(req)
}

func giveRequestID(req proto.Message) error {
	id, err := uuid.NewV7()
	if err != nil {
		return amendsv1.ErrInternal.With("forward: making a request_id: %v", err)
	}
	setText(req, "request_id", id.String())
	return nil
}

func setText(req proto.Message, field, value string) {
	set(req, field, protoreflect.ValueOfString(value))
}

// set sets a field, which every request of a route with it has: a test goes
// through them all.
func set(req proto.Message, field string, value protoreflect.Value) {
	m := req.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(field)), value)
}
