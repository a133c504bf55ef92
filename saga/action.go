package saga

import (
	"fmt"

	"github.com/amends-dev/amends/saga/txn"
)

// Action is something that a participant can do and undo, with the types of
// its request and reply. It is the contract that both sides import.
type Action[Req, Rep any] struct {
	name  string
	codec Codec
	retry Retry
}

// NewAction returns the action "service.verb", encoded as JSON and retried by
// the defaults. It panics when the name is illegal: actions are package
// variables, so the mistake shows at once.
func NewAction[Req, Rep any](name string) Action[Req, Rep] {
	if err := txn.CheckAction("action", name); err != nil {
		panic(fmt.Sprintf("saga: NewAction: %v", err))
	}
	return Action[Req, Rep]{name: name, codec: txn.JSON{}}
}

// WithCodec returns a copy that encodes requests and replies with c; nil
// stands for JSON.
func (a Action[Req, Rep]) WithCodec(c Codec) Action[Req, Rep] {
	if c == nil {
		c = txn.JSON{}
	}
	a.codec = c
	return a
}

// WithRetry returns a copy that is retried by r unless a step says otherwise.
// Build reports an r that makes no sense.
func (a Action[Req, Rep]) WithRetry(r Retry) Action[Req, Rep] {
	a.retry = r
	return a
}

// Name returns the full name, for example "accounts.debit".
func (a Action[Req, Rep]) Name() string { return a.name }

// Codec returns what encodes requests and replies, never nil.
func (a Action[Req, Rep]) Codec() Codec {
	if a.codec == nil {
		return txn.JSON{}
	}
	return a.codec
}

// Retry returns the action's own retry policy; zero values are defaults.
func (a Action[Req, Rep]) Retry() Retry { return a.retry }

// With binds the action to a request, for a step. An encoding error is kept
// and reported by Build.
func (a Action[Req, Rep]) With(req Req) Request {
	r := Request{action: a.name, retry: a.retry}
	payload, err := a.Codec().Marshal(req)
	if err != nil {
		r.err = fmt.Errorf("action %q: encode the request: %w", a.name, err)
	}
	if len(payload) > 0 {
		r.payload = payload
	}
	return r
}

// Request is an action bound to its encoded request: what a step will call.
// Action.With makes one.
type Request struct {
	action  string
	payload []byte
	retry   Retry
	err     error
}
