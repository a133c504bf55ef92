package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits of acts.
const (
	MaxActor     = 512    // bytes of ActRequest.Actor
	MaxReason    = 1024   // bytes of ActRequest.Reason
	MaxRequestID = 128    // bytes of ActRequest.RequestID
	MaxActed     = 10_000 // dead letters of one Replay or Discard

	actChunk   = 500  // rows of one statement
	maxActIDs  = 1000 // message ids that are recorded
	actRetries = 3    // of a transaction that met another one
)

// Errors of acts. Test them with errors.Is.
var (
	// ErrAct is returned for a request with mistakes; it names each field and
	// the fix.
	ErrAct = errors.New("outbox: illegal request")
	// ErrActConflict is returned for a RequestID that was used for something else.
	ErrActConflict = errors.New("outbox: the request id was used for something else")
)

// ActRequest says who acts, and why.
type ActRequest struct {
	Actor  string // who: required
	Reason string // why, for the record: required
	// RequestID is the caller's own key: the same request again answers as before
	// and does nothing more. Empty means a random one.
	RequestID string
	// ValidateOnly answers as the act would, and does nothing.
	ValidateOnly bool
}

func (r *ActRequest) validate() error {
	text := func(field, s string, limit int, required bool) error {
		switch {
		case required && strings.TrimSpace(s) == "":
			return fmt.Errorf("field %s is empty: it is for the record", field)
		case len(s) > limit:
			return fmt.Errorf("field %s is %d bytes long, at most %d are allowed", field, len(s), limit)
		}
		return nil
	}
	err := errors.Join(text("Actor", r.Actor, MaxActor, true), text("Reason", r.Reason, MaxReason, true),
		text("RequestID", r.RequestID, MaxRequestID, false))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAct, err)
	}
	return nil
}

// Verb is what can be done by hand.
type Verb string

// The verbs.
const (
	VerbReplay  Verb = "replay"  // dead letters, back into the outbox
	VerbDiscard Verb = "discard" // dead letters, for good
	VerbSkip    Verb = "skip"    // a waiting message, to the dead letters
	VerbPark    Verb = "park"    // a key's waiting messages, to the dead letters
)

// Act is what somebody did.
type Act struct {
	Number    int64 // grows with each act; 0 when ValidateOnly
	Verb      Verb
	Target    string // what to, for example "topic orders key a", "position 2-1071"
	Actor     string
	Reason    string
	RequestID string
	Messages  int64     // moved or deleted
	IDs       []string  // of the first 1000 of them
	More      bool      // what Topic and Key select was more than MaxActed
	At        time.Time // by the database's clock
}

// Acts lists what was done by hand, newest first, from before a number (0: from
// the newest one); limit is as in WaitingQuery. The records are kept for ever.
func (op *Operator) Acts(ctx context.Context, before int64, limit int) ([]Act, error) {
	limit, err := pageSize(limit)
	if err != nil {
		return nil, err
	}
	var out []Act
	err = op.each(ctx, op.d.operate.actList, []any{before, before, limit}, func(scan scanner) error {
		a, err := scanAct(scan)
		out = append(out, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: list acts: %w", err)
	}
	return out, nil
}

func scanAct(scan scanner) (Act, error) {
	var a Act
	var request, target, actor, reason, ids []byte
	var more int
	var at int64
	if err := scan(&a.Number, &request, &a.Verb, &target, &actor, &reason, &a.Messages, &ids, &more, &at); err != nil {
		return Act{}, err
	}
	a.RequestID, a.Target, a.Actor, a.Reason = string(request), string(target), string(actor), string(reason)
	a.More, a.At = more != 0, time.UnixMicro(at)
	if len(ids) == 0 {
		return a, nil
	}
	return a, json.Unmarshal(ids, &a.IDs)
}

// errValidated rolls a transaction back that was run to see what it would do.
var errValidated = errors.New("validated only")

// act records an act and carries it out in one transaction. do fills in what it
// did. A request that was carried out before answers with its record.
func (op *Operator) act(ctx context.Context, r ActRequest, a Act, do func(context.Context, *sql.Tx, *Act) error) (Act, error) {
	if err := r.validate(); err != nil {
		return Act{}, err
	}
	if r.RequestID == "" {
		id, err := newID()
		if err != nil {
			return Act{}, err
		}
		r.RequestID = id
	}
	a.Actor, a.Reason, a.RequestID = r.Actor, r.Reason, r.RequestID
	var done Act
	run := func(tx *sql.Tx) (err error) {
		done = a
		if done, err = op.actIn(ctx, tx, done, do); err == nil && r.ValidateOnly {
			done.Number = 0
			return errValidated
		}
		return err
	}
	var err error
	for range actRetries {
		if err = InTx(ctx, op.db, op.d.txOptions(), run); !op.d.Retryable(err) {
			break
		}
	}
	switch {
	case errors.Is(err, errValidated):
		return done, nil
	case err != nil:
		return Act{}, fmt.Errorf("outbox: %s %s: %w", a.Verb, a.Target, err)
	}
	op.o.Wake()
	return done, nil
}

func (op *Operator) actIn(ctx context.Context, tx *sql.Tx, a Act, do func(context.Context, *sql.Tx, *Act) error) (Act, error) {
	sqls, id := &op.d.operate, []byte(a.RequestID)
	fresh, err := execCount(ctx, tx, sqls.actBegin, id, string(a.Verb), []byte(a.Target), []byte(a.Actor), []byte(a.Reason))
	if err != nil {
		return Act{}, err
	}
	get := func() (Act, error) { return scanAct(tx.QueryRowContext(ctx, sqls.actGet, id).Scan) }
	if fresh != 1 {
		before, err := get()
		if err == nil && (before.Verb != a.Verb || before.Target != a.Target || before.Actor != a.Actor || before.Reason != a.Reason) {
			return Act{}, fmt.Errorf("%w: it was %s %s by %s", ErrActConflict, before.Verb, before.Target, before.Actor)
		}
		return before, err
	}
	if err := do(ctx, tx, &a); err != nil {
		return Act{}, err
	}
	ids, err := json.Marshal(a.IDs)
	if err != nil {
		return Act{}, err
	}
	if _, err := tx.ExecContext(ctx, sqls.actEnd, a.Messages, ids, flag(a.More), id); err != nil {
		return Act{}, err
	}
	return get()
}

// moved notes messages that an act moved or deleted.
func (a *Act) moved(ids []string) {
	a.Messages += int64(len(ids))
	a.IDs = append(a.IDs, ids[:min(len(ids), maxActIDs-len(a.IDs))]...)
}
