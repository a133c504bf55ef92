package amendsv1

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// ErrorDomain is the domain of every ErrorInfo that a coordinator sends.
const ErrorDomain = "amends.dev"

// Error is an error of the coordinator, the same value on both sides of the
// wire: errors.Is compares the Reason with one of the Err values below.
type Error struct {
	Reason     string            // a word from the table of reasons, in ErrorInfo
	Message    string            // for people
	Metadata   map[string]string // details by name, for example "branch"
	RetryAfter time.Duration     // of an overload: when to try again

	code codes.Code // what gRPC calls it
}

// The errors of the coordinator. Each stands for its reason; what is returned
// carries a message of its own.
var (
	ErrNotFound          = sentinel("NOT_FOUND", codes.NotFound, "no such transaction")
	ErrGIDConflict       = sentinel("GID_CONFLICT", codes.AlreadyExists, "the gid was started with other content")
	ErrBranchConflict    = sentinel("BRANCH_CONFLICT", codes.AlreadyExists, "the branch was tried with other content")
	ErrInvalidGID        = sentinel("INVALID_GID", codes.InvalidArgument, "illegal gid")
	ErrInvalidDefinition = sentinel("INVALID_DEFINITION", codes.InvalidArgument, "the definition cannot be honoured")
	ErrInvalidArgument   = sentinel("INVALID_ARGUMENT", codes.InvalidArgument, "invalid argument")
	ErrUnknownAction     = sentinel("UNKNOWN_ACTION", codes.InvalidArgument, "the service does not offer this action")
	ErrTooLarge          = sentinel("PAYLOAD_TOO_LARGE", codes.InvalidArgument, "payload over the limit")
	ErrPageToken         = sentinel("INVALID_PAGE_TOKEN", codes.InvalidArgument, "the page token is not one of ours")
	ErrFilter            = sentinel("INVALID_FILTER", codes.InvalidArgument, "the filter cannot be understood")
	ErrOverloaded        = sentinel("OVERLOADED", codes.ResourceExhausted, "the coordinator is full")
	ErrDecided           = sentinel("ALREADY_DECIDED", codes.FailedPrecondition, "the transaction is already decided")
	ErrDeadlinePassed    = sentinel("DEADLINE_PASSED", codes.FailedPrecondition, "the transaction's deadline has passed")
	ErrWrongKind         = sentinel("WRONG_KIND", codes.FailedPrecondition, "the transaction is of the other kind")
	ErrTryPending        = sentinel("TRY_PENDING", codes.FailedPrecondition, "a try has not been answered yet")
	ErrRefused           = sentinel("REFUSED", codes.FailedPrecondition, "the participant refused")
	ErrRolledBack        = sentinel("ROLLED_BACK", codes.FailedPrecondition, "the transaction is rolled back")
	ErrIllegalVerb       = sentinel("ILLEGAL_VERB", codes.FailedPrecondition, "this cannot be done where the transaction stands")
	ErrETag              = sentinel("ETAG_MISMATCH", codes.Aborted, "the transaction has changed since")
	ErrRequestConflict   = sentinel("REQUEST_CONFLICT", codes.AlreadyExists, "the request_id was used with other content")
	ErrUnauthenticated   = sentinel("UNAUTHENTICATED", codes.Unauthenticated, "no valid credentials")
	ErrPermission        = sentinel("PERMISSION_DENIED", codes.PermissionDenied, "the caller's roles do not allow this")
	ErrProtocolVersion   = sentinel("PROTOCOL_VERSION", codes.FailedPrecondition, "the participant speaks another version of the protocol")
	ErrNotOwner          = sentinel("NOT_OWNER", codes.Unavailable, "the transaction's shard is not owned here just now; try again")
	ErrUnavailable       = sentinel("UNAVAILABLE", codes.Unavailable, "the coordinator cannot serve this just now")
	ErrInternal          = sentinel("INTERNAL", codes.Internal, "the coordinator failed")
)

func sentinel(reason string, code codes.Code, message string) *Error {
	return &Error{Reason: reason, Message: message, code: code}
}

// With returns a copy of e with a message of its own.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	c.Message = fmt.Sprintf(format, args...)
	return &c
}

// WithMetadata returns a copy of e with a detail added.
func (e *Error) WithMetadata(key, value string) *Error {
	c := *e
	c.Metadata = maps.Clone(e.Metadata)
	if c.Metadata == nil {
		c.Metadata = map[string]string{}
	}
	c.Metadata[key] = value
	return &c
}

// WithRetryAfter returns a copy of e that says when to try again.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error returns the message with its reason.
func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Is compares reasons.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// GRPCStatus is how the error crosses the wire: gRPC makes the status of an RPC
// from it. Texts of any bytes and any length are made fit to be sent: see
// ValidText; of the message, 2 KiB are sent, and of a detail 1 KiB.
func (e *Error) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{Domain: ErrorDomain, Reason: e.Reason}
	for k, v := range e.Metadata {
		if info.Metadata == nil {
			info.Metadata = make(map[string]string, len(e.Metadata))
		}
		info.Metadata[shorten(ValidText(k), maxDetail)] = shorten(ValidText(v), maxDetail)
	}
	details := []protoadapt.MessageV1{info}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	message := shorten(ValidText(e.Message), maxMessage)
	st, err := status.New(e.code, message).WithDetails(details...)
	if err != nil { // only for a code of OK, which no reason has
		return status.New(codes.Internal, message)
	}
	return st
}

// FromError turns what an RPC returned into the *Error that the server sent; a
// connection that failed is an ErrUnavailable, too. When the RPC ended with its
// context, errors.Is finds the context's own error in what is returned. Other
// errors, nil included, and an *Error come back unchanged.
func FromError(err error) error {
	if own := (*Error)(nil); err == nil || errors.As(err, &own) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := fromStatus(st)
	switch {
	case e.Reason != "":
		return e
	case st.Code() == codes.Canceled:
		return &contextError{rpc: err, context: context.Canceled}
	case st.Code() == codes.DeadlineExceeded:
		return &contextError{rpc: err, context: context.DeadlineExceeded}
	case st.Code() == codes.Unavailable:
		e.Reason = ErrUnavailable.Reason
		return e
	}
	return err
}

func fromStatus(st *status.Status) *Error {
	e := &Error{Message: st.Message(), code: st.Code()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == ErrorDomain {
				e.Reason, e.Metadata = d.GetReason(), d.GetMetadata()
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// contextError is an RPC that ended with its context.
type contextError struct {
	rpc, context error
}

func (e *contextError) Error() string   { return e.rpc.Error() }
func (e *contextError) Unwrap() []error { return []error{e.context, e.rpc} }
