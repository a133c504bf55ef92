package sdk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Defaults of TCCConfig.
const (
	DefaultTCCTimeout = time.Minute
	DefaultEndTimeout = 30 * time.Second
)

// TCCConfig configures RunTCC. A nil *TCCConfig is all defaults.
type TCCConfig struct {
	GID        string            // your own key, up to 128 bytes, as StartConfig.GID; empty: a UUIDv7
	Labels     map[string]string // business keys to search by; at most 16
	Timeout    time.Duration     // cancels when undecided after this; 0: 1 minute
	EndTimeout time.Duration     // how long RunTCC waits for the confirms or cancels; 0: 30 s
}

// TCC is an open transaction, valid inside the function given to RunTCC.
type TCC struct {
	client *Client
	gid    string

	mu    sync.Mutex
	opens *amendsv1.BeginTccRequest // travels with the tries until one has opened it; nil: it is open
	sent  int                       // tries that may have
	used  map[string]bool           // names of branches
	err   error                     // of the first Try that failed
	ended bool
}

// GID returns the transaction's id.
func (t *TCC) GID() string { return t.gid }

// RunTCC opens a TCC transaction, calls fn, which tries its branches with Try,
// and then confirms all of them if fn returned nil and cancels them if not.
// Under a gid that RunTCC makes, it is the first try that opens it.
//
// It returns nil when every branch is confirmed; a *RolledBackError, in which
// errors.Is finds fn's error, when every branch is cancelled; and an
// *UnknownError when that takes longer than EndTimeout or could not be learned:
// the decision stands (or, if none was made, the transaction cancels at its
// deadline), and Client.Run(gid).Wait tells more. Every other error says that
// nothing was begun, as ErrOverloaded does. What fn returned decides:
// the end of ctx reaches fn, and does not stop the second phase.
//
// A transaction in which any Try failed cannot commit, whatever fn returns. If
// fn panics the transaction is aborted and the panic goes on. The context that
// fn receives ends at the transaction's timeout.
//
// With a GID of your own, running it again resumes: fn runs again while the
// transaction is undecided, its tries being answered with what they answered
// before, and does not run once it is decided. Tries made concurrently should
// then be named (TryNamed).
func RunTCC(ctx context.Context, c *Client, name string, fn func(ctx context.Context, t *TCC) error, cfg *TCCConfig) (err error) {
	if cfg == nil {
		cfg = &TCCConfig{}
	}
	if err := c.usable(); err != nil {
		return fmt.Errorf("sdk: tcc %q: %w", name, err)
	}
	req, err := beginRequest(name, cfg)
	if err != nil {
		return fmt.Errorf("sdk: tcc %q: %w", name, err)
	}
	if fn == nil {
		return fmt.Errorf("sdk: tcc %q: the function is nil", name)
	}
	ctx, end := c.spanOf(ctx, "tcc", name, req.GetGid())
	defer func() { end(err) }()
	req.Traceparent = traceparentOf(ctx)
	t := &TCC{client: c, gid: req.GetGid(), opens: req, used: map[string]bool{}}
	endTimeout := cfg.EndTimeout
	if endTimeout == 0 {
		endTimeout = DefaultEndTimeout
	}
	if cfg.GID != "" { // there may be one: fn is not to run if it is decided
		tx, err := t.begin(ctx, req)
		if err != nil {
			return err
		}
		if stateOf(tx.GetState()) != txn.Running {
			return t.await(ctx, endTimeout)
		}
	}
	err = t.tryAll(ctx, fn, req.GetTimeout().AsDuration(), endTimeout)
	return t.end(ctx, err, endTimeout)
}

func beginRequest(name string, cfg *TCCConfig) (*amendsv1.BeginTccRequest, error) {
	var errs []error
	if err := txn.CheckName("name", name); err != nil {
		errs = append(errs, ErrInvalidDefinition.With("%v", err))
	}
	if cfg.EndTimeout < 0 {
		errs = append(errs, ErrInvalidArgument.With("end timeout is %s, want 0 (30 s) or more", cfg.EndTimeout))
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = DefaultTCCTimeout
	}
	gid, err := checkStart(cfg.GID, cfg.Labels, timeout)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return &amendsv1.BeginTccRequest{
		Gid: gid, Name: name, Timeout: wireDuration(timeout), Labels: maps.Clone(cfg.Labels),
	}, nil
}

// tryAll runs fn and returns why the transaction must not commit.
func (t *TCC) tryAll(ctx context.Context, fn func(context.Context, *TCC) error, timeout, endTimeout time.Duration) error {
	fnCtx, cancel := context.WithTimeoutCause(ctx, timeout, ErrDeadlinePassed)
	defer cancel()
	returned := false
	defer func() {
		if returned {
			return
		}
		// fn panicked or ended its goroutine. What was tried is given back
		// sooner than at the deadline; if that fails, then at the deadline.
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer stop()
		if err := t.giveBack(end, "the caller's function panicked"); err != nil {
			t.client.log.WarnContext(ctx, "sdk: abort after a panic failed", "gid", t.gid, "err", err)
		}
	}()
	err := fn(fnCtx, t)
	returned = true

	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if err == nil && t.err != nil {
		err = fmt.Errorf("a try failed, so the transaction cannot commit: %w", t.err)
	}
	return err
}

// end decides, on a context that the caller's cancellation does not reach.
func (t *TCC) end(ctx context.Context, cause error, timeout time.Duration) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := t.ensureOpen(end, cause); err != nil {
		return err
	}
	if cause == nil {
		req := &amendsv1.CommitTccRequest{Gid: t.gid, Wait: waitFor(end)}
		resp, err := retrying(end, t.client, "commit tcc", req, t.client.rpc.CommitTcc)
		switch {
		case err == nil:
			return t.run().waitOn(end, resp.GetTransaction())
		case errors.Is(err, ErrDecided), errors.Is(err, ErrDeadlinePassed):
			return because(t.run().Wait(end), err)
		case !errors.Is(err, ErrTryPending):
			return &UnknownError{GID: t.gid, State: txn.Running, Err: err}
		}
		cause = err
	}
	tx, err := t.run().abort(end, &amendsv1.AbortTransactionRequest{Gid: t.gid, Reason: cleanText(cause.Error()), Wait: waitFor(end)})
	if err != nil && !errors.Is(err, ErrDecided) {
		return &UnknownError{GID: t.gid, State: txn.Running, Err: fmt.Errorf("%w: %w", cause, err)}
	}
	return because(t.run().waitOn(end, tx), cause)
}

// await waits for a transaction that was decided before this call.
func (t *TCC) await(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return t.run().Wait(ctx)
}

func (t *TCC) run() *Run { return t.client.Run(t.gid) }

// because puts the caller's own error into an answer, so that errors.Is finds
// it there.
func because(answer, cause error) error {
	switch a := answer.(type) { //nolint:errorlint // Wait returns exactly these
	case *RolledBackError:
		a.Err = cause
	case *UnknownError:
		a.Err = fmt.Errorf("%w: %w", cause, a.Err)
	}
	return answer
}

// Try adds a branch to t: it is registered durably, then its try is called,
// and what that replied is returned. The branch is named by the action's verb,
// "seat", and when that is taken "seat#2" and so on.
//
// errors.Is(err, ErrRefused): the participant refused. ErrDecided and
// ErrDeadlinePassed: it came too late. After any error return it from the
// function: the transaction is turned back.
func Try[Req, Rep any](ctx context.Context, t *TCC, a tcc.Action[Req, Rep], req Req) (Rep, error) {
	return TryNamed(ctx, t, "", a, req)
}

// TryNamed is Try with a name of your own for the branch, unique within the
// transaction. Trying again with the same name and request waits for the same
// try.
func TryNamed[Req, Rep any](ctx context.Context, t *TCC, branch string, a tcc.Action[Req, Rep], req Req) (Rep, error) {
	var rep Rep
	branch, err := t.enter(branch, a.Name())
	if err != nil {
		err = fmt.Errorf("sdk: try %q: %w", a.Name(), err)
		t.fail(err)
		return rep, err
	}
	body, err := t.try(ctx, branch, a.Name(), a.Codec(), a.Retry(), req)
	if err == nil {
		if err = a.Codec().Unmarshal(body, &rep); err != nil {
			rep, err = *new(Rep), fmt.Errorf("the reply cannot be decoded into %T: %w", rep, err)
		}
	}
	if err == nil {
		return rep, nil
	}
	err = fmt.Errorf("sdk: try %q of %q: %w", branch, a.Name(), err)
	t.fail(err)
	return rep, err
}

func (t *TCC) try(ctx context.Context, branch, action string, codec txn.Codec, retry txn.Retry, req any) ([]byte, error) {
	payload, err := codec.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("the request cannot be encoded: %w", err)
	}
	msg := &amendsv1.TryBranchRequest{Gid: t.gid, Branch: branch, Action: action, Payload: payload, Retry: wireRetry(retry)}
	return t.tryOpen(ctx, msg)
}

// enter names the branch.
func (t *TCC) enter(branch, action string) (string, error) {
	if err := txn.CheckAction("action", action); err != nil {
		return "", ErrInvalidArgument.With("%v (make actions with tcc.NewAction)", err)
	}
	if branch != "" {
		if err := txn.CheckName("branch", branch); err != nil {
			return "", ErrInvalidArgument.With("%v", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return "", ErrDecided.With("the function given to RunTCC has returned")
	}
	if branch == "" {
		_, verb := txn.SplitAction(action)
		branch = verb
		for n := 2; t.used[branch]; n++ { // at most as often as there are branches
			branch = verb + "#" + strconv.Itoa(n)
		}
	}
	t.used[branch] = true
	return branch, nil
}

func (t *TCC) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}
