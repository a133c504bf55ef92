package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// verb is something that an operator can do to a transaction.
type verb struct {
	name, args, short, long string

	check func(*cobra.Command, []string) error
	do    func(context.Context, amendsv1.OperatorServiceClient, *acting) error
}

// verbs are all there are, by the names that the command line has for them.
func verbs() []*verb {
	return []*verb{
		{"retry", "GID [BRANCH]", "Call again at once what waits for its next attempt",
			`Call again at once whatever waits for its next attempt, or one branch alone. Of a
parked transaction the stuck branches are tried again.`, gidMaybeBranch, retry},
		{"abort", "GID", "Turn a transaction back",
			`Turn a transaction back: what was done is undone, what was tried is cancelled. To
stop without undoing, see 'amends tx abandon'.`, oneGID, abort},
		{"pause", "GID", "Send no more calls",
			`Send no more calls. Answers to calls under way are still taken, and the deadline
does not fire until 'amends tx resume'.`, oneGID, pause},
		{"resume", "GID", "Let a paused transaction go on",
			`Let a paused transaction go on.`, oneGID, resume},
		{"skip", "GID BRANCH", "Say that what a branch owes need not happen",
			`Say that what a branch owes now (its do, undo, confirm or cancel) need not happen.`, gidAndBranch, skip},
		{"complete", "GID [BRANCH]", "Say that what a branch owes was done by hand",
			`Say that what a branch owes now was done by hand. Later steps receive --reply as
its reply. Without a branch it answers a check: the work did commit.`, gidMaybeBranch, complete},
		{"fail", "GID BRANCH", "Answer a branch's call as a refusal",
			`Answer a branch's call as though the participant had refused it.`, gidAndBranch, fail},
		{"abandon", "GID", "End a transaction as it stands, undoing nothing",
			`End a transaction as it stands: nothing more is called, and effects may remain. It
needs the break-glass role.`, oneGID, abandon},
	}
}

func retry(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.RetryNow(ctx, &amendsv1.RetryNowRequest{
		Gid: a.gid, Branch: a.branch, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun})
	return err
}

func abort(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.Abort(ctx, &amendsv1.AbortRequest{
		Gid: a.gid, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun})
	return err
}

func pause(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.Pause(ctx, &amendsv1.PauseRequest{
		Gid: a.gid, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun})
	return err
}

func resume(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.Resume(ctx, &amendsv1.ResumeRequest{
		Gid: a.gid, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun})
	return err
}

func skip(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.SkipStep(ctx, &amendsv1.SkipStepRequest{
		Gid: a.gid, Branch: a.branch, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun})
	return err
}

func complete(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.CompleteStep(ctx, &amendsv1.CompleteStepRequest{
		Gid: a.gid, Branch: a.branch, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun,
		Reply: a.encoded})
	return err
}

func fail(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.FailStep(ctx, &amendsv1.FailStepRequest{
		Gid: a.gid, Branch: a.branch, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun})
	return err
}

func abandon(ctx context.Context, c amendsv1.OperatorServiceClient, a *acting) error {
	_, err := c.Abandon(ctx, &amendsv1.AbandonRequest{
		Gid: a.gid, Reason: a.reason, RequestId: a.requestID, Etag: a.etag, ValidateOnly: a.dryRun})
	return err
}

// verbName is what the command line calls a verb: "retry" is VERB_RETRY_NOW.
func verbName(v amendsv1.Verb) string {
	name := word(v.String(), "VERB_")
	return strings.TrimSuffix(strings.TrimSuffix(name, "_now"), "_step")
}

func verbNames(all []amendsv1.Verb) string {
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = verbName(v)
	}
	return strings.Join(names, ", ")
}

// gidAndBranch and gidMaybeBranch are what verbs take beside flags.
func gidAndBranch(_ *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usagef("want two arguments, the gid of a transaction and the name of a branch, got %d", len(args))
	}
	return nil
}

func gidMaybeBranch(_ *cobra.Command, args []string) error {
	if len(args) != 1 && len(args) != 2 {
		return usagef("want the gid of a transaction, and perhaps the name of a branch, got %d arguments", len(args))
	}
	return nil
}
