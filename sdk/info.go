package sdk

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// CallInfo says which call a handler is performing.
type CallInfo struct {
	Namespace  string    // ParticipantConfig.Namespace
	GID        string    // the global transaction
	Branch     string    // the step or branch
	Op         txn.Op    // what is asked
	Attempt    int       // counts from 1; an attempt may itself be delivered more than once
	Action     string    // for example "accounts.debit"
	Service    string    // for example "accounts"
	ExpireTime time.Time // TCC: by the coordinator's clock the transaction cancels when undecided by then; otherwise zero
}

// IdempotencyKey is the same for every delivery of this operation of this
// branch and for nothing else. Give it to systems that are not part of the
// local transaction, a payment provider for example. It holds spaces.
func (i CallInfo) IdempotencyKey() string { return i.key(i.Op.String()) }

// key joins with spaces because no namespace, gid or branch can hold one, so
// that no two keys are the same by accident: the default namespace's have three
// words, those of others four.
func (i CallInfo) key(op string) string {
	key := i.GID + " " + i.Branch + " " + op
	if i.Namespace != "" {
		key = i.Namespace + " " + key
	}
	return key
}

// call is what a handler performs; its context carries it.
type call struct {
	info    CallInfo
	index   int32
	payload []byte
	replies []txn.Reply
	timeout time.Duration

	traceparent string
	recorded    bool // it took effect and the guard has recorded that, with the reply

	mu  sync.Mutex
	err error // the first reply that could not be decoded
}

type callKey struct{}

func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// Info returns the call that a handler's context belongs to, and false for any
// other context.
func Info(ctx context.Context) (CallInfo, bool) {
	c := callFrom(ctx)
	if c == nil {
		return CallInfo{}, false
	}
	return c.info, true
}

// ReplyOf returns what the nearest earlier step that performs action a
// answered, and false when this step comes after none (or ctx is not a
// handler's). Only steps that this one depends on are seen. Of several, the
// nearest is the one defined last. A reply that cannot be decoded fails the
// call, whatever the handler returns.
func ReplyOf[Req, Rep any](ctx context.Context, a saga.Action[Req, Rep]) (Rep, bool) {
	var rep Rep
	c := callFrom(ctx)
	if c == nil {
		return rep, false
	}
	for i := len(c.replies) - 1; i >= 0; i-- {
		r := c.replies[i]
		if r.Action != a.Name() {
			continue
		}
		if err := a.Codec().Unmarshal(r.Body, &rep); err != nil {
			c.fail(fmt.Errorf("the reply of step %q (%s) cannot be decoded into %T: %w", r.Branch, r.Action, rep, err))
			return *new(Rep), false
		}
		return rep, true
	}
	return rep, false
}

func (c *call) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

func (c *call) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
