package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// backoff paces what is asked again: 50 ms, doubling, at most 5 s.
func backoff(attempt int) time.Duration {
	r := txn.Retry{Initial: 50 * time.Millisecond, Cap: 5 * time.Second}
	return r.Delay(attempt, rand.Float64())
}

// sleep waits for d and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ClientConfig configures a Client. A nil *ClientConfig is all defaults.
type ClientConfig struct {
	Namespace      string               // of every request; empty: the only one of the credentials, else the default one
	Logger         *slog.Logger         // nil: slog.Default()
	TracerProvider trace.TracerProvider // makes a span of each start; nil: OpenTelemetry's global one

	// Unary makes every request an RPC of its own, for proxies and interceptors that
	// are to see each, above all for unary interceptors that add metadata. Else the
	// requests of a crowd (four at a time or more on a connection) share a stream, which
	// costs less; the connection's credentials and stream interceptors count for it, and
	// where there is none, requests are RPCs of their own.
	Unary bool
}

// Client asks a coordinator. It may be used by many goroutines.
type Client struct {
	rpc amendsv1.TransactionServiceClient // nil when it was given no connection
	log *slog.Logger

	namespace string
	conn      grpc.ClientConnInterface // without the namespace

	tracer trace.Tracer
}

// NewClient returns a client over a connection, which is a *Cluster or a
// *grpc.ClientConn across the network or a coordinator's Conn in the same process. Credentials
// are the connection's: see BearerToken. The client does not close it.
func NewClient(conn grpc.ClientConnInterface, cfg *ClientConfig) *Client {
	if cfg == nil {
		cfg = &ClientConfig{}
	}
	c := &Client{log: cfg.Logger, tracer: tracerOf(cfg.TracerProvider), namespace: cfg.Namespace}
	if conn != nil {
		if c.conn = shared(conn); cfg.Unary {
			c.conn = unary{conn}
		}
		c.rpc = amendsv1.NewTransactionServiceClient(inNamespace(c.conn, cfg.Namespace))
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	return c
}

// usable reports a client that was never given a connection, which would
// otherwise be found by a nil dereference, or was given a wrong namespace.
func (c *Client) usable() error {
	if c == nil || c.rpc == nil {
		return errors.New("the client has no connection: give NewClient a *grpc.ClientConn or a coordinator's Conn()")
	}
	if err := amendsv1.CheckNamespace(c.namespace); err != nil {
		return ErrInvalidArgument.With("ClientConfig.Namespace: %v", err)
	}
	return nil
}

// StartConfig configures the start of a saga. A nil *StartConfig is all
// defaults.
type StartConfig struct {
	// GID is a key of your own, up to 128 bytes; empty: a UUIDv7. It names one
	// transaction for good. Given again for the same, it answers with what there is;
	// for another one it is refused as long as the coordinator remembers (its
	// --retention), and then not, but participants may still answer for the first.
	GID     string
	Labels  map[string]string // business keys to search by; at most 16
	Timeout time.Duration     // turns back when not committed after this; 0: as the saga says (by default never)

	// Namespace is where a saga of StartTx begins; it travels with the row. Empty:
	// that of the Starter's client. For Start it is empty or the client's own.
	Namespace string
}

// Start begins a saga and returns when that is durable: from then on it ends,
// whatever becomes of this process. While the coordinator is unavailable it
// tries again until ctx ends.
//
// A gid makes it idempotent: started again with the same input it returns the
// same run, with another it is ErrGIDConflict. Other errors: ErrInvalidDefinition,
// ErrInvalidGID, ErrUnknownAction, ErrTooLarge, ErrOverloaded, ErrUnauthenticated,
// ErrPermission. When ctx ends before there was an answer it is an *UnknownError:
// the saga may have begun.
func Start[In any](ctx context.Context, c *Client, s saga.Saga[In], in In, cfg *StartConfig) (run *Run, err error) {
	req, err := requestOf(c, s, in, cfg)
	if err != nil {
		return nil, fmt.Errorf("sdk: start saga %q: %w", s.Name(), err)
	}
	ctx, end := c.spanOf(ctx, "start saga", req.GetName(), req.GetGid())
	defer func() { end(err) }()
	if _, err = c.start(ctx, req); err != nil {
		return nil, err
	}
	return c.Run(req.GetGid()), nil
}

// RunSaga is Start and then Run.Wait, in one request: nil says that the saga
// committed everywhere, *RolledBackError that it is undone everywhere. An
// *UnknownError has the gid with which Client.Run waits for longer: ctx ended
// first, and the saga goes on, if it has begun (State is zero where that is not
// known). Every other error is Start's own, and nothing was begun.
//
// It ends promptly with ctx. A connection that is lost meanwhile, or a
// coordinator that stops, only makes it slower.
func RunSaga[In any](ctx context.Context, c *Client, s saga.Saga[In], in In, cfg *StartConfig) (err error) {
	req, err := requestOf(c, s, in, cfg)
	if err != nil {
		return fmt.Errorf("sdk: run saga %q: %w", s.Name(), err)
	}
	ctx, end := c.spanOf(ctx, "run saga", req.GetName(), req.GetGid())
	defer func() { end(err) }()
	req.Wait = waitFor(ctx)
	resp, err := c.start(ctx, req)
	if err != nil {
		return err
	}
	return c.Run(req.GetGid()).waitOn(ctx, resp.GetTransaction())
}

// requestOf is the start of a saga by this client.
func requestOf[In any](c *Client, s saga.Saga[In], in In, cfg *StartConfig) (*amendsv1.StartSagaRequest, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	if cfg != nil && cfg.Namespace != "" && cfg.Namespace != c.namespace {
		return nil, ErrInvalidArgument.With(
			"StartConfig.Namespace is %q, the client's is %q: make a client for each", cfg.Namespace, c.namespace)
	}
	return startRequest(s, in, cfg)
}

// start asks until there is an answer. A repetition meets the saga that an
// attempt before has begun.
func (c *Client) start(ctx context.Context, req *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
	req.Traceparent = traceparentOf(ctx)
	resp, err := retrying(ctx, c, "start saga", req, c.rpc.StartSaga)
	if err != nil {
		return nil, notStarted("start saga", req.GetName(), req.GetGid(), err)
	}
	return resp, nil
}

// notStarted wraps the error of a start: what was rejected has not begun, and
// what the coordinator may have received is unknown.
func notStarted(what, name, gid string, err error) error {
	if rejected(err) {
		return fmt.Errorf("sdk: %s %q: %w", what, name, err)
	}
	return &UnknownError{GID: gid, Err: err}
}

// rejected reports an error that says for certain that nothing was begun.
func rejected(err error) bool {
	var known *CoordinatorError
	if errors.As(err, &known) {
		return !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotOwner) || neverStarts(err)
	}
	switch status.Code(err) {
	case codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.ResourceExhausted:
		return true
	}
	return false
}

// neverStarts reports a rejection that holds for every attempt of a start, those
// before it included.
func neverStarts(err error) bool {
	for _, never := range []error{ErrGIDConflict, ErrInvalidGID, ErrInvalidDefinition, ErrInvalidArgument, ErrTooLarge, ErrWrongKind} {
		if errors.Is(err, never) {
			return true
		}
	}
	return false
}

// rpcTimeout bounds one attempt: a coordinator answers a wait after maxWait at
// the latest, so silence for longer is a connection that died without a word.
const rpcTimeout = maxWait + 15*time.Second

// method is an RPC of the generated client.
type method[Req, Resp any] func(context.Context, *Req, ...grpc.CallOption) (*Resp, error)

// retrying calls an idempotent RPC until it is answered by anything but
// Unavailable, or ctx ends. Its errors are the coordinator's own or the
// context's, with the last failure before it.
func retrying[Req, Resp any](ctx context.Context, c *Client, what string, req *Req, call method[Req, Resp]) (*Resp, error) {
	var last error
	for attempt := 1; ; attempt++ {
		resp, err := once(ctx, req, call)
		if err == nil {
			return resp, nil
		}
		err = fromError(err)
		switch {
		case status.Code(err) == codes.Unavailable:
			last = err
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			// The server's timer may be a moment ahead of ours.
			if !sleep(ctx, 20*time.Millisecond) {
				return nil, ended(ctx, err, last)
			}
			last = ErrUnavailable.With("no answer: %v", err) // ended by rpcTimeout, or by something on the way
		case last != nil:
			return nil, fmt.Errorf("%w, after %w", err, last)
		default:
			return nil, err
		}
		if attempt == 1 {
			c.log.WarnContext(ctx, "sdk: the coordinator cannot be asked, trying again", "rpc", what, "gid", gidOf(req), "err", err)
		}
		if !sleep(ctx, backoff(attempt)) {
			return nil, ended(ctx, ctx.Err(), last)
		}
	}
}

// gidOf is the transaction that a request is about, for logs.
func gidOf(req any) string {
	if r, ok := req.(interface{ GetGid() string }); ok {
		return r.GetGid()
	}
	return "" // of none: no request of the TransactionService is so
}

func once[Req, Resp any](ctx context.Context, req *Req, call method[Req, Resp]) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	return call(ctx, req)
}

// ended adds to the error of a call that its context ended why that did, and
// what went wrong before.
func ended(ctx context.Context, err, last error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	if last != nil {
		err = fmt.Errorf("%w, after %w", err, last)
	}
	return err
}
