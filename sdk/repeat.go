package sdk

import (
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// repeat tells which requests of a method may be sent to another member when
// nobody knows whether the first one carried them out.
type repeat int

const (
	never  repeat = iota // only when it certainly was not delivered
	always               // twice is once
	byGID                // once by its gid; without one, each is another transaction
	byID                 // once by its request_id
)

// repeats is what a Cluster repeats. A method that is not here is never repeated
// after it may have been delivered.
var repeats = map[string]repeat{
	amendsv1.TransactionService_StartSaga_FullMethodName:        byGID,  // the same content under one gid is the same transaction
	amendsv1.TransactionService_BeginTcc_FullMethodName:         byGID,  // as a saga
	amendsv1.TransactionService_TryBranch_FullMethodName:        always, // the same branch waits for the same try
	amendsv1.TransactionService_CommitTcc_FullMethodName:        always, // a decision that was made stands, and is the answer
	amendsv1.TransactionService_AbortTransaction_FullMethodName: always, // as a commit
	amendsv1.TransactionService_WaitTransaction_FullMethodName:  always, // reads
	amendsv1.TransactionService_FindEnded_FullMethodName:        always, // reads

	amendsv1.AdminService_GetTransaction_FullMethodName:    always, // reads
	amendsv1.AdminService_ListTransactions_FullMethodName:  always, // reads; page tokens hold for every member
	amendsv1.AdminService_CountTransactions_FullMethodName: always, // reads
	amendsv1.AdminService_ListEvents_FullMethodName:        always, // reads

	amendsv1.OperatorService_RetryNow_FullMethodName:     byID,   // an act without a request_id is another act
	amendsv1.OperatorService_Abort_FullMethodName:        byID,   // as RetryNow
	amendsv1.OperatorService_Pause_FullMethodName:        byID,   // as RetryNow: somebody may have resumed in between
	amendsv1.OperatorService_Resume_FullMethodName:       byID,   // as Pause
	amendsv1.OperatorService_SkipStep_FullMethodName:     byID,   // twice could skip the do and then the undo
	amendsv1.OperatorService_CompleteStep_FullMethodName: byID,   // as SkipStep
	amendsv1.OperatorService_FailStep_FullMethodName:     byID,   // as RetryNow
	amendsv1.OperatorService_Abandon_FullMethodName:      byID,   // as RetryNow
	amendsv1.OperatorService_StartBulk_FullMethodName:    byID,   // the request_id is the bulk's own
	amendsv1.OperatorService_GetBulk_FullMethodName:      always, // reads
	amendsv1.OperatorService_ListBulks_FullMethodName:    always, // reads
	amendsv1.OperatorService_CancelBulk_FullMethodName:   always, // what is stopped stays stopped

	amendsv1.ClusterService_GetOverview_FullMethodName:      always, // reads
	amendsv1.ClusterService_GetCluster_FullMethodName:       always, // reads
	amendsv1.ClusterService_ListMembers_FullMethodName:      always, // reads
	amendsv1.ClusterService_ListParticipants_FullMethodName: always, // reads
	amendsv1.ClusterService_WhoAmI_FullMethodName:           always, // reads
	amendsv1.ClusterService_DrainMember_FullMethodName:      always, // draining what is drained changes nothing
	amendsv1.ClusterService_UndrainMember_FullMethodName:    never,  // somebody may have drained it in between

	// Streams are never repeated once they are open: whoever reads them knows
	// where to go on.
	amendsv1.AdminService_WatchTransaction_FullMethodName: never,
	amendsv1.ParticipantService_Attend_FullMethodName:     never,
	amendsv1.TransactionService_Converse_FullMethodName:   never, // of what is under way in it, each by its own method
}

// repeatable reports whether a request may be sent again although it may have
// been delivered.
func repeatable(method string, request any) bool {
	switch repeats[method] {
	case always:
		return true
	case byGID:
		r, ok := request.(interface{ GetGid() string })
		return ok && r.GetGid() != ""
	case byID:
		r, ok := request.(interface{ GetRequestId() string })
		return ok && r.GetRequestId() != ""
	}
	return false
}
