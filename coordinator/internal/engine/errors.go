package engine

import (
	"errors"
	"fmt"

	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// Errors between a request and its worker.
var (
	errStopped   = amendsv1.ErrUnavailable.With("the coordinator is stopping; try again, here or at another one")
	errElsewhere = amendsv1.ErrNotOwner.With("the transaction's shard is not owned here just now; try again")
	errPaused    = amendsv1.ErrUnavailable.With("the transaction is paused by an operator; try again when it is resumed")
	errNotLive   = errors.New("engine: not in memory")
	errStale     = errors.New("engine: read from the store too long ago")
)

func notFound(gid string) error {
	return amendsv1.ErrNotFound.With("no transaction %q: never started here, or past its retention", gid)
}

func illegal(gid string, from, to txn.State) error {
	return fmt.Errorf("engine: transaction %q: no way leads from %v to %v", gid, from, to)
}

// turnedBack is what a caller of a transaction hears that has turned back for
// the given cause.
func turnedBack(cause *txn.Reason) error {
	if cause == nil {
		return amendsv1.ErrDecided.With("the transaction is already decided")
	}
	var e *amendsv1.Error
	switch cause.Code {
	case txn.CodeDeadline:
		e = amendsv1.ErrDeadlinePassed.With("the transaction turned back: %s", cause)
	case txn.CodeRefused, txn.CodeExhausted:
		e = amendsv1.ErrRefused.With("the transaction turned back: %s", cause).WithMetadata("branch", cause.Branch)
	default:
		e = amendsv1.ErrDecided.With("the transaction turned back: %s", cause)
	}
	return e.WithMetadata("code", cause.Code).WithMetadata("message", cause.Message)
}

// refusal turns a machine's error into the one that crosses the wire.
func refusal(gid string, m machine, err error) error {
	switch {
	case errors.Is(err, tcc.ErrDecided):
		if m.phase() == txn.RollingBack || m.phase() == txn.RolledBack {
			return turnedBack(m.cause())
		}
		return amendsv1.ErrDecided.With("transaction %q is %v: it is decided and cannot be changed", gid, m.phase())
	case errors.Is(err, tcc.ErrExpired):
		return amendsv1.ErrDeadlinePassed.With("transaction %q: %v", gid, err)
	case errors.Is(err, tcc.ErrTryPending):
		return amendsv1.ErrTryPending.With("transaction %q: %v", gid, err)
	case errors.Is(err, tcc.ErrBranchExists):
		return amendsv1.ErrBranchConflict.With("transaction %q: %v", gid, err)
	}
	return amendsv1.ErrInvalidArgument.With("transaction %q: %v", gid, err)
}
