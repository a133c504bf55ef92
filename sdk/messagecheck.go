package sdk

import (
	"context"
	"errors"
	"fmt"

	"github.com/amends-dev/amends/saga/txn"
)

// CheckResult is what a check knows of the work of a two-phase message. The
// zero value is CheckUnknown.
type CheckResult uint8

// The results of a check.
const (
	CheckUnknown    CheckResult = iota // cannot tell: it is asked again, until it can
	CheckCommitted                     // the work committed: the message is published
	CheckRolledBack                    // the work did not commit, and never will: the message is dropped
)

// HandleCheck registers what p answers when a message of SendMessage that names
// this action, for example "orders.placed", is undecided at its deadline: whether the
// work under that gid committed. It runs in no transaction and may be asked many
// times, also at once, by any instance of the service.
//
// CheckRolledBack is a promise. Work that is still under way may commit after it
// was looked for, so a check that finds nothing has to make sure first that the
// work never commits, for example by noting the gid as cancelled where the work
// notes it as done, so that the work then fails. A check that cannot do that
// answers CheckUnknown. With an error, whatever the result, it is asked again.
//
// It panics when the action is registered already, belongs to another service,
// when check is nil, and while p runs.
func HandleCheck(p *Participant, name string, check func(ctx context.Context, gid string) (CheckResult, error)) {
	if check == nil {
		panic(fmt.Sprintf("sdk: HandleCheck(%q): check is nil", name))
	}
	p.register(&action{name: name, with: "HandleCheck", check: check})
}

// NewChecker returns a participant of a service that has no database of a kind
// that outbox knows: it answers checks (HandleCheck) and nothing else. SkipMigrate
// and Outbox of cfg mean nothing. It panics when an argument makes no sense.
func NewChecker(service string, cfg *ParticipantConfig) *Participant {
	return newParticipant("NewChecker", service, guard{}, cfg)
}

// answerCheck performs a call of an action that is a check.
func (a *action) answerCheck(ctx context.Context, c *call) ([]byte, error) {
	switch c.info.Op {
	case txn.Check:
	case txn.Undo, txn.Cancel:
		return nil, nil // it never did anything
	default:
		return nil, Refuse(fmt.Errorf("%q is registered with %s and does not handle %s", a.name, a.with, c.info.Op))
	}
	result, err := a.check(ctx, c.info.GID)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the check failed: %v", err) //nolint:errorlint // not wrapped: a refusal in it is no answer
	case result == CheckCommitted:
		return nil, nil
	case result == CheckRolledBack:
		return nil, Refuse(errors.New("its check says so"))
	}
	return nil, errors.New("the check cannot tell yet")
}
