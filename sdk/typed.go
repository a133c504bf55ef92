package sdk

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/amends-dev/amends/saga/txn"
)

// MaxReply is the longest encoded reply of a handler, in bytes. It must fit
// into a message together with others.
const MaxReply = 1 << 20

// firstPhase gives a do or try its types. What can be said for certain not to
// have taken effect, because request or reply cannot be encoded, is refused:
// trying again would not help.
func firstPhase[Req, Rep any](codec txn.Codec, fn func(context.Context, *sql.Tx, Req) (Rep, error)) handler {
	return func(ctx context.Context, tx *sql.Tx, payload, _ []byte) ([]byte, error) {
		var req Req
		if err := codec.Unmarshal(payload, &req); err != nil {
			return nil, Refuse(fmt.Errorf("the request cannot be decoded into %T: %w", req, err))
		}
		rep, err := fn(ctx, tx, req)
		if err != nil {
			return nil, err
		}
		body, err := codec.Marshal(rep)
		if err != nil {
			return nil, Refuse(fmt.Errorf("the reply %T cannot be encoded: %w", rep, err))
		}
		if len(body) > MaxReply {
			return nil, Refuse(fmt.Errorf("the reply is %d bytes long, at most %d are allowed", len(body), MaxReply))
		}
		return body, nil
	}
}

// secondPhase gives an undo, confirm or cancel its types. It is owed, so what
// cannot be decoded is not refused: a fixed version of the service will do it.
func secondPhase[Req, Rep any](codec txn.Codec, fn func(context.Context, *sql.Tx, Req, Rep) error) handler {
	return func(ctx context.Context, tx *sql.Tx, payload, did []byte) ([]byte, error) {
		var req Req
		if err := codec.Unmarshal(payload, &req); err != nil {
			return nil, fmt.Errorf("the request cannot be decoded into %T: %w", req, err)
		}
		var rep Rep
		if err := codec.Unmarshal(did, &rep); err != nil {
			return nil, fmt.Errorf("the recorded reply cannot be decoded into %T: %w", rep, err)
		}
		return nil, fn(ctx, tx, req, rep)
	}
}

// usualRecord is what the guard records of a first phase that replies nothing but
// the zero value, as many do.
func usualRecord[Rep any](codec txn.Codec) (record []byte) {
	defer func() {
		if recover() != nil { // a codec need not take the zero value: no handler may ever reply it
			record = nil
		}
	}()
	body, err := codec.Marshal(*new(Rep))
	if err != nil {
		return nil
	}
	return append([]byte{markDone}, body...)
}
