package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// newCall reads a call from the wire.
func (p *Participant) newCall(m *amendsv1.Call) *call {
	c := &call{
		info: CallInfo{
			Namespace: p.cfg.Namespace, GID: m.GetGid(), Branch: m.GetBranch(), Op: opOf(m.GetOp()),
			Attempt: int(m.GetAttempt()), Action: m.GetAction(), Service: p.service,
		},
		index: m.GetIndex(), payload: m.GetPayload(), timeout: m.GetTimeout().AsDuration(),

		traceparent: m.GetTraceparent(),
	}
	if c.timeout <= 0 {
		c.timeout = txn.DefaultCallTimeout
	}
	if m.GetExpireTime() != nil {
		c.info.ExpireTime = m.GetExpireTime().AsTime()
	}
	for _, r := range m.GetReplies() {
		c.replies = append(c.replies, txn.Reply{Branch: r.GetBranch(), Action: r.GetAction(), Body: r.GetBody()})
	}
	return c
}

// answer performs a call within its timeout and says how it ended. ctx is not
// cancelled when the participant drains: what runs, runs to its end.
func (p *Participant) answer(ctx context.Context, c *call) (out *amendsv1.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var reply []byte
	var err error
	ctx, end := p.spanOf(ctx, c)
	defer func() { end(out, err) }() // also when the handler ends its goroutine
	select {
	case p.slots <- struct{}{}:
		reply, err = p.protected(context.WithValue(ctx, callKey{}, c), c)
	case <-ctx.Done():
		err = fmt.Errorf("all %d handlers were busy for %s", cap(p.slots), c.timeout)
	}
	return p.outcome(ctx, c, reply, err)
}

// protected performs a call, gives its slot back and turns a panic of the
// handler into an error. The transaction has been rolled back by then.
func (p *Participant) protected(ctx context.Context, c *call) (reply []byte, err error) {
	defer func() {
		<-p.slots
		if v := recover(); v != nil {
			reply, err = nil, fmt.Errorf("the handler panicked: %v", v)
			p.log.ErrorContext(ctx, "sdk: handler panicked", slog.Any("panic", v),
				"gid", c.info.GID, "branch", c.info.Branch, "op", c.info.Op, "stack", string(debug.Stack()))
		}
	}()
	a := p.lookup(c.info.Action)
	if a == nil {
		return nil, fmt.Errorf("this instance does not offer %q", c.info.Action)
	}
	if a.check != nil {
		return a.answerCheck(ctx, c)
	}
	reply, err = p.guard.perform(ctx, c, a)
	c.recorded = err == nil
	return reply, err
}

// outcome is how an error becomes one of the three outcomes.
func (p *Participant) outcome(ctx context.Context, c *call, reply []byte, err error) *amendsv1.Outcome {
	out := &amendsv1.Outcome{Gid: c.info.GID, Index: c.index, Op: amendsv1.Op(c.info.Op), Attempt: int32(c.info.Attempt)}
	log := p.log.With("gid", c.info.GID, "branch", c.info.Branch, "op", c.info.Op, "attempt", c.info.Attempt)
	var refused *RefusedError
	code := txn.OK
	switch {
	case err == nil:
		out.Reply, out.Recorded = reply, c.recorded
	case errors.As(err, &refused) && ctx.Err() == nil: // what refuses when its time is over was maybe only too slow
		code, out.Reply, out.Message = txn.Refused, reply, cleanText(err.Error())
		log.InfoContext(ctx, "sdk: refused", "err", err)
	default:
		code, out.Message = txn.Unknown, cleanText(err.Error())
		log.WarnContext(ctx, "sdk: call failed, the coordinator will ask again", "err", err)
	}
	out.Code = wireOutcome(code)
	return out
}
