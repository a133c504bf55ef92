package auth

import (
	"slices"
	"strings"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// rule says who may call a method.
type rule struct {
	public bool            // without credentials
	roles  []amendsv1.Role // any of these
	// request says which roles one request needs beside it; nil: none.
	request func(req any) []amendsv1.Role
}

var (
	read  = rule{roles: []amendsv1.Role{amendsv1.Role_ROLE_VIEWER, amendsv1.Role_ROLE_OPERATOR, amendsv1.Role_ROLE_BREAK_GLASS}}
	act   = rule{roles: []amendsv1.Role{amendsv1.Role_ROLE_OPERATOR, amendsv1.Role_ROLE_BREAK_GLASS}}
	force = rule{roles: []amendsv1.Role{amendsv1.Role_ROLE_BREAK_GLASS}}
	serve = rule{roles: []amendsv1.Role{amendsv1.Role_ROLE_SERVICE}}
	known = rule{roles: append(slices.Clone(read.roles), amendsv1.Role_ROLE_SERVICE)}
	bulk  = rule{roles: act.roles, request: bulkRoles}
)

// rules lists every method that can be called, and who may. What is not here is
// refused to everybody.
//
// TransactionService is for services alone: people turn transactions back with
// OperatorService, which asks for a reason and writes down who did it. Services
// read with WaitTransaction and FindEnded, by gid; the rest of a namespace's
// transactions are not theirs to see.
var rules = map[string]rule{
	amendsv1.TransactionService_StartSaga_FullMethodName:        serve,
	amendsv1.TransactionService_BeginTcc_FullMethodName:         serve,
	amendsv1.TransactionService_TryBranch_FullMethodName:        serve,
	amendsv1.TransactionService_CommitTcc_FullMethodName:        serve,
	amendsv1.TransactionService_AbortTransaction_FullMethodName: serve,
	amendsv1.TransactionService_WaitTransaction_FullMethodName:  serve,
	amendsv1.TransactionService_FindEnded_FullMethodName:        serve,
	amendsv1.TransactionService_Converse_FullMethodName:         serve, // and each of its requests by its own rule

	amendsv1.ParticipantService_Attend_FullMethodName: serve,

	amendsv1.AdminService_GetTransaction_FullMethodName:    read,
	amendsv1.AdminService_ListTransactions_FullMethodName:  read,
	amendsv1.AdminService_CountTransactions_FullMethodName: read,
	amendsv1.AdminService_ListEvents_FullMethodName:        read,
	amendsv1.AdminService_WatchTransaction_FullMethodName:  read,

	amendsv1.ClusterService_GetOverview_FullMethodName:      read,
	amendsv1.ClusterService_GetCluster_FullMethodName:       read,
	amendsv1.ClusterService_ListMembers_FullMethodName:      known,
	amendsv1.ClusterService_DrainMember_FullMethodName:      act,
	amendsv1.ClusterService_UndrainMember_FullMethodName:    act,
	amendsv1.ClusterService_ListParticipants_FullMethodName: read,
	amendsv1.ClusterService_WhoAmI_FullMethodName:           known,

	amendsv1.OperatorService_RetryNow_FullMethodName:     act,
	amendsv1.OperatorService_Abort_FullMethodName:        act,
	amendsv1.OperatorService_Pause_FullMethodName:        act,
	amendsv1.OperatorService_Resume_FullMethodName:       act,
	amendsv1.OperatorService_SkipStep_FullMethodName:     act,
	amendsv1.OperatorService_CompleteStep_FullMethodName: act,
	amendsv1.OperatorService_FailStep_FullMethodName:     act,
	amendsv1.OperatorService_Abandon_FullMethodName:      force,
	amendsv1.OperatorService_StartBulk_FullMethodName:    bulk,
	amendsv1.OperatorService_GetBulk_FullMethodName:      read,
	amendsv1.OperatorService_ListBulks_FullMethodName:    read,
	amendsv1.OperatorService_CancelBulk_FullMethodName:   act,

	amendsv1.OutboxService_GetOutbox_FullMethodName:          read,
	amendsv1.OutboxService_ListMessages_FullMethodName:       read,
	amendsv1.OutboxService_ListDeadLetters_FullMethodName:    read,
	amendsv1.OutboxService_GetDeadLetter_FullMethodName:      read,
	amendsv1.OutboxService_ListBlockedKeys_FullMethodName:    read,
	amendsv1.OutboxService_ListOutboxActs_FullMethodName:     read,
	amendsv1.OutboxService_ReplayDeadLetters_FullMethodName:  act,
	amendsv1.OutboxService_DiscardDeadLetters_FullMethodName: act,
	amendsv1.OutboxService_SkipMessage_FullMethodName:        act,
	amendsv1.OutboxService_ParkKey_FullMethodName:            act,

	healthpb.Health_Check_FullMethodName: {public: true},
	healthpb.Health_List_FullMethodName:  known,
	healthpb.Health_Watch_FullMethodName: known,

	reflection.ServerReflection_ServerReflectionInfo_FullMethodName:      read,
	reflectionalpha.ServerReflection_ServerReflectionInfo_FullMethodName: read,
}

// bulkRoles: to abandon many is what to abandon one is.
func bulkRoles(req any) []amendsv1.Role {
	if r, ok := req.(*amendsv1.StartBulkRequest); ok && r.GetVerb() == amendsv1.Verb_VERB_ABANDON {
		return force.roles
	}
	return nil
}

// allow tells whether a caller has one of the roles that something needs. The
// answer is the same whether or not there is such a namespace.
func allow(c Caller, method string, roles []amendsv1.Role) error {
	if c.Has(roles...) {
		return nil
	}
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = RoleName(r)
	}
	where := "the default namespace"
	if c.Namespace != "" {
		where = "namespace " + c.Namespace
	}
	return amendsv1.ErrPermission.With("%s: %s needs the role %s in %s", c.Subject, short(method), strings.Join(names, " or "), where)
}

// short is a method without its package: "AdminService.GetTransaction".
func short(method string) string {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service[strings.LastIndex(service, ".")+1:] + "." + name
}
