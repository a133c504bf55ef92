package sdk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// MessageService is the service that a Courier is an instance of.
const MessageService = "amends.messages"

// Publish is the action of a Courier: its try takes a message's place in the
// order of its key, its confirm has the message published. SendMessage uses it;
// a TCC transaction that tries it beside its other branches publishes the
// message if it commits.
var Publish = tcc.NewAction[outbox.Message, struct{}](MessageService + ".publish")

// messageBranch is the name of a two-phase message's only branch.
const messageBranch = "message"

// DefaultMessageTimeout is the time after which an undecided message is checked.
const DefaultMessageTimeout = time.Minute

// MessageConfig configures SendMessage. A nil *MessageConfig is all defaults.
type MessageConfig struct {
	GID        string            // your own key, up to 128 bytes; empty: a UUIDv7
	Labels     map[string]string // business keys to search by; at most 16
	Timeout    time.Duration     // the work has so long, then the check is asked; 0: 1 minute
	EndTimeout time.Duration     // how long SendMessage tries to have its decision stored; 0: 30 s
	CheckRetry tcc.Retry         // when the check is asked again; Attempts is ignored
}

// SendMessage publishes m if work commits, for services that have no outbox
// table in the database that work changes. It prepares the message at the
// coordinator, runs work, and then has the message published or dropped. If
// nobody says what became of work by the Timeout, because this process died, the
// coordinator asks the action check, which the service handles with HandleCheck,
// until it knows.
//
// work commits what it does under gid, so that the check finds it. It returns
// nil when that has committed, Refuse(err) when it has not and never will, and
// any other error when it may have, an error of the commit for example: that is
// for the check to find out. Its context ends before the check is asked for the
// first time.
//
// SendMessage returns nil once it is durable that the message is published: a
// Courier does it, at least once. It returns a *RolledBackError, in which
// errors.Is finds the error of work, when the message never will be, and an
// *UnknownError when that is undecided or could not be learned: Client.Run(gid)
// tells more. Other errors say that nothing was begun and work did not run. The
// end of ctx reaches work, and not what follows it. If work panics, the panic
// goes on and the check decides.
//
// Messages of one key are published in the order in which they were prepared,
// and an undecided one holds back the later ones of its key, and no others. m.ID
// is the gid where it is empty. Texts in m have to be valid UTF-8.
//
// With a GID of your own, sending again while it is undecided and before its
// Timeout runs work again; afterwards it only returns what was decided.
func SendMessage(ctx context.Context, c *Client, m outbox.Message, check string,
	work func(ctx context.Context, gid string) error, cfg *MessageConfig,
) (err error) {
	if cfg == nil {
		cfg = &MessageConfig{}
	}
	s, err := newSending(c, &m, check, work, cfg)
	if err != nil {
		return fmt.Errorf("sdk: message to %q: %w", m.Topic, err)
	}
	ctx, end := c.spanOf(ctx, "message", check, s.gid)
	defer func() { end(err) }()
	s.begin.Traceparent = traceparentOf(ctx)
	asked := time.Now()
	resp, err := retrying(ctx, c, "begin message", s.begin, c.rpc.BeginTcc)
	if err != nil {
		return notStarted("begin message", check, s.gid, err)
	}
	if tx := resp.GetTransaction(); stateOf(tx.GetState()) != txn.Running {
		return s.answer(tx, nil)
	}
	if err := s.prepare(ctx, m, resp.GetCreated()); err != nil {
		return err
	}
	return s.work(ctx, s.checkedAt(asked, resp), work)
}

// sending is a two-phase message on its way.
type sending struct {
	TCC
	begin      *amendsv1.BeginTccRequest
	endTimeout time.Duration
}

// newSending checks everything that can be checked before anything is begun.
func newSending(c *Client, m *outbox.Message, check string, work func(context.Context, string) error,
	cfg *MessageConfig,
) (*sending, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = DefaultMessageTimeout
	}
	var errs []error
	if work == nil {
		errs = append(errs, ErrInvalidArgument.With("work is nil"))
	}
	if cfg.EndTimeout < 0 {
		errs = append(errs, ErrInvalidArgument.With("EndTimeout is %s, want 0 (30 s) or more", cfg.EndTimeout))
	}
	d := tcc.Definition{Name: check, Timeout: timeout, Check: tcc.CheckBack{Action: check, Retry: cfg.CheckRetry}}
	if err := d.Validate(); err != nil {
		errs = append(errs, ErrInvalidDefinition.With("check and CheckRetry: %v", err))
	}
	gid, err := checkStart(cfg.GID, cfg.Labels, timeout)
	errs = append(errs, err)
	if m.ID == "" {
		m.ID = gid
	}
	m.CreatedAt = time.Time{} // the outbox's to say
	if err := checkMessage(m); err != nil {
		errs = append(errs, ErrInvalidArgument.With("%v", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s := &sending{TCC: TCC{client: c, gid: gid}, endTimeout: cfg.EndTimeout}
	if s.endTimeout == 0 {
		s.endTimeout = DefaultEndTimeout
	}
	s.begin = &amendsv1.BeginTccRequest{
		Gid: gid, Name: check, Timeout: wireDuration(timeout), Labels: maps.Clone(cfg.Labels),
		Check: &amendsv1.CheckBack{Action: check, Retry: wireRetry(cfg.CheckRetry)},
	}
	return s, nil
}

// prepare has the message kept. When it cannot be, the work does not run; but it
// may have run before, where the message was begun before, so only a message that
// this call began is dropped at once.
func (s *sending) prepare(ctx context.Context, m outbox.Message, created bool) error {
	_, err := s.try(ctx, messageBranch, Publish.Name(), Publish.Codec(), Publish.Retry(), m)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrRefused), errors.Is(err, ErrDecided), errors.Is(err, ErrDeadlinePassed):
		return s.learn(ctx, err)
	case created && rejected(err) && !errors.Is(err, ErrBranchConflict): // then another call has prepared it
		return s.drop(ctx, err)
	}
	return &UnknownError{GID: s.gid, State: txn.Running, Err: fmt.Errorf("prepare: %w", err)}
}

// checkedAt is when the check is asked, at the soonest: of a message that was
// begun before by the coordinator's clock, else by ours.
func (s *sending) checkedAt(asked time.Time, resp *amendsv1.BeginTccResponse) time.Time {
	at := asked.Add(s.begin.GetTimeout().AsDuration())
	if before := resp.GetTransaction().GetDeadline(); !resp.GetCreated() && before != nil && before.AsTime().Before(at) {
		return before.AsTime()
	}
	return at
}

// work runs the caller's function and decides as it says.
func (s *sending) work(ctx context.Context, until time.Time, work func(context.Context, string) error) error {
	inTime, cancel := context.WithDeadlineCause(ctx, until, ErrDeadlinePassed)
	defer cancel()
	err := context.Cause(inTime)
	if err == nil {
		err = work(inTime, s.gid)
	}
	var refused *RefusedError
	switch {
	case err == nil:
		return s.commit(ctx)
	case errors.As(err, &refused):
		return s.drop(ctx, err)
	}
	return &UnknownError{GID: s.gid, State: txn.Running, Err: fmt.Errorf("its check will tell: %w", err)}
}

// commit and drop decide, on a context that the caller's cancellation does not
// reach.
func (s *sending) commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.endTimeout)
	defer cancel()
	_, err := retrying(ctx, s.client, "commit message", &amendsv1.CommitTccRequest{Gid: s.gid}, s.client.rpc.CommitTcc)
	switch {
	case err == nil:
		return nil // the decision is durable
	case errors.Is(err, ErrDecided), errors.Is(err, ErrDeadlinePassed):
		return s.learn(ctx, err)
	}
	return &UnknownError{GID: s.gid, State: txn.Running, Err: err}
}

func (s *sending) drop(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.endTimeout)
	defer cancel()
	req := &amendsv1.AbortTransactionRequest{Gid: s.gid, Reason: cleanText(cause.Error())}
	resp, err := retrying(ctx, s.client, "drop message", req, s.client.rpc.AbortTransaction)
	switch {
	case err == nil:
		return s.rolledBack(resp.GetTransaction(), cause)
	case errors.Is(err, ErrDecided):
		return s.learn(ctx, cause)
	}
	return &UnknownError{GID: s.gid, State: txn.Running, Err: fmt.Errorf("%w: %w", cause, err)}
}

// learn asks what was decided.
func (s *sending) learn(ctx context.Context, cause error) error {
	req := &amendsv1.WaitTransactionRequest{Gid: s.gid, MaxWait: durationpb.New(time.Millisecond)}
	resp, err := retrying(ctx, s.client, "wait", req, s.client.rpc.WaitTransaction)
	if err != nil {
		return &UnknownError{GID: s.gid, Err: fmt.Errorf("%w: %w", cause, err)}
	}
	return s.answer(resp.GetTransaction(), cause)
}

// answer is what the decision means for the message: whether it is published
// soon or was already makes no difference to who sends it.
func (s *sending) answer(tx *amendsv1.Transaction, cause error) error {
	switch state := stateOf(tx.GetState()); state {
	case txn.Committing, txn.Committed:
		return nil
	case txn.RollingBack, txn.RolledBack:
		return s.rolledBack(tx, cause)
	case txn.Parked, txn.Abandoned:
		_, err := answer(s.gid, tx)
		if cause != nil {
			err = because(err, cause)
		}
		return err
	default:
		return &UnknownError{GID: s.gid, State: state, Err: errors.Join(cause, errors.New("its check will tell"))}
	}
}

func (s *sending) rolledBack(tx *amendsv1.Transaction, cause error) error {
	why := tx.GetCause()
	return &RolledBackError{GID: s.gid, Step: why.GetBranch(), Code: why.GetCode(), Reason: why.GetMessage(), Err: cause}
}
