package api

import (
	"context"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// What operators ask for, in the engine's words.
type (
	// Command is one verb for one transaction, whose GID is its key.
	Command = engine.Command
	// Bulk is one verb for all that a query selects: unfinished transactions
	// of one namespace. Its ID is its key.
	Bulk = engine.Bulk
	// BulkProgress is how far a bulk is.
	BulkProgress = engine.BulkProgress
)

// Operator is what the handlers of operators' verbs need of the engine.
type Operator interface {
	// Act does what an operator asks for, and returns when it is durable.
	// Errors: ErrNotFound; ErrIllegalVerb, which says what would be legal;
	// ErrETag; ErrRequestConflict; ErrInvalidArgument for a branch that there
	// is not; ErrUnavailable.
	Act(ctx context.Context, cmd Command) (store.Record, error)
	// Legal returns the verbs that are legal where a transaction stands: of
	// the whole, and of each branch by index.
	Legal(rec store.Record) (whole []amendsv1.Verb, branches [][]amendsv1.Verb, err error)

	// StartBulk stores a bulk durably, as a record with
	//
	//	GID        Bulk.ID
	//	Namespace  wire.BulkNamespace(…)
	//	Kind       wire.KindBulk
	//	State      as wire.BulkState says
	//
	// and then carries it out. When the same is there already, created is
	// false; when the id is another bulk's, the error is ErrRequestConflict.
	StartBulk(ctx context.Context, b Bulk) (rec store.Record, created bool, err error)
	// CancelBulk stops a bulk, durably. One that has ended stays as it is, and
	// is returned.
	CancelBulk(ctx context.Context, id, actor, reason string) (store.Record, error)
	// BulkOf reads the record of a bulk.
	BulkOf(rec store.Record) (Bulk, BulkProgress, error)

	// Rates are transactions of a namespace per second on this coordinator,
	// over the last minute.
	Rates(namespace string) (started, committed, rolledBack float64)
	// StallAfter is how long a transaction may wait for a participant until it
	// counts as stalled; negative: for ever.
	StallAfter() time.Duration
}
