package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// The defaults of Config.
const (
	DefaultRate    = 10_000
	DefaultStreams = 1_000
)

// logRate is how many refusals per second are written to the log: who cannot
// get in shall not fill the disk.
const logRate = 10

// Config configures a Guard. Zero values stand for the defaults.
type Config struct {
	// Rate is how many requests per second one subject may send, with a burst
	// of as many; over it they are refused as overloaded. Default 10,000;
	// negative: any.
	Rate float64
	// Streams is how many streams one subject may have open at a time: those of
	// participants, watches and reflection. Default 1,000; negative: any.
	Streams int
	// Payloads says to whom payloads are shown; it is asked at every answer.
	// Default: what the Authenticator says, if it has a method Payloads as File
	// and Chain do, else Payloads{}.
	Payloads func() Payloads
	// Logger takes refusals, at most ten per second, and what break-glass was
	// shown. Default slog.Default().
	Logger *slog.Logger
}

// Guard stands before the services: it finds out who calls, and lets in who may.
// All methods are safe for concurrent use.
type Guard struct {
	everybody *Caller // nobody is asked: they are all this one
	who       Authenticator
	limits    *limits
	payloads  func() Payloads // nil: everybody is shown all
	seal      *Seal           // nil: no member of a cluster is believed
	log       *slog.Logger
	logs      *logLimit
}

// logLimit counts what is written to the log.
type logLimit struct {
	mu sync.Mutex
	bucket
}

// New makes a Guard that asks who for the identity behind each request.
func New(who Authenticator, cfg *Config) (*Guard, error) {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	var errs []error
	if who == nil {
		errs = append(errs, errors.New("auth: no Authenticator: for a coordinator that asks nobody, leave its Auth nil"))
	}
	if math.IsNaN(c.Rate) || math.IsInf(c.Rate, 1) {
		errs = append(errs, fmt.Errorf("auth: Rate is %v, want requests per second", c.Rate))
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Streams == 0 {
		c.Streams = DefaultStreams
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Guard{
		who: who, limits: newLimits(c.Rate, c.Streams), payloads: c.payloads(who), log: c.Logger, logs: &logLimit{},
	}, errors.Join(errs...)
}

func (c *Config) payloads(who Authenticator) func() Payloads {
	if c.Payloads != nil {
		return c.Payloads
	}
	if r, ok := who.(ruler); ok {
		return r.Payloads
	}
	return func() Payloads { return Payloads{} }
}

// Open returns a Guard that asks nobody: every caller has every role, and an
// empty subject.
func Open() *Guard {
	return &Guard{everybody: &Caller{Identity: *everybody("")}, logs: &logLimit{}}
}

// InProcess returns a Guard for callers of the coordinator's own process, who
// have every role and the subject "in-process".
func InProcess() *Guard {
	return &Guard{everybody: &Caller{Identity: *everybody(inProcess), Authenticated: true}, logs: &logLimit{}}
}

// Unary is a grpc.UnaryServerInterceptor. It should stand inside of those that
// count, trace and log, so that they see what it refuses.
func (g *Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, _, err := g.enter(ctx, info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	answer, err := next(ctx, req)
	g.show(ctx, info.FullMethod, answer)
	return answer, err
}

// Stream is a grpc.StreamServerInterceptor. It asks again every minute whether
// the stream's credentials are still good, and ends it when they are not.
func (g *Guard) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, said, err := g.enter(ss.Context(), info.FullMethod, nil)
	if err != nil {
		return err
	}
	s := &stream{ServerStream: ss, guard: g, method: info.FullMethod, ctx: ctx, checked: time.Now(), said: said}
	if caller, _ := FromContext(ctx); said == nil && g.everybody == nil && !rules[s.method].public {
		release, err := g.limits.stream(caller.Subject)
		if err != nil {
			return err
		}
		defer release()
	}
	return next(srv, s)
}

// enter returns the context of a request that is let in, and what a member of
// the cluster says of it, if one has forwarded it. The request is nil while it is
// yet to be read.
func (g *Guard) enter(ctx context.Context, method string, req any) (context.Context, *sealed, error) {
	rule, listed := rules[method]
	if !listed {
		return nil, nil, amendsv1.ErrPermission.With("%s is nobody's to call", short(method))
	}
	if rule.public {
		return ctx, nil, nil
	}
	in, said, err := g.vouched(ctx, method)
	switch {
	case err == nil && said == nil:
		in, err = g.ask(ctx, method, req)
	case err == nil && req != nil:
		err = g.ofRequest(in, method, said, req)
	}
	if err != nil {
		g.refused(ctx, method, err)
		return nil, nil, err
	}
	return in, said, nil
}

// ask lets in who has credentials, and no more often than they may.
func (g *Guard) ask(ctx context.Context, method string, req any) (context.Context, error) {
	id, err := g.identify(ctx)
	if err == nil && g.everybody == nil {
		err = g.limits.request(id.Subject)
	}
	if err != nil {
		return nil, err
	}
	caller, err := g.authorise(ctx, id, method, req)
	return NewContext(ctx, caller), err
}

// identify finds out who calls.
func (g *Guard) identify(ctx context.Context) (*Identity, error) {
	if g.everybody != nil {
		return &g.everybody.Identity, nil
	}
	c, err := credentialsOf(ctx)
	if err != nil {
		return nil, err
	}
	id, err := g.who.Authenticate(ctx, c)
	switch own := (*amendsv1.Error)(nil); {
	case err == nil && id == nil:
		return nil, amendsv1.ErrUnauthenticated.With("credentials of a kind that is not taken here")
	case err == nil:
		if err := id.check(); err != nil {
			return nil, amendsv1.ErrUnauthenticated.With("%v", err)
		}
		return id, nil
	case errors.As(err, &own), ctx.Err() != nil:
		return nil, err
	}
	// It may be an Authenticator of the user's, and say what nobody should read.
	return nil, amendsv1.ErrUnavailable.With("who calls cannot be told just now")
}

// authorise decides what a caller may do in the namespace of the request.
func (g *Guard) authorise(ctx context.Context, id *Identity, method string, req any) (Caller, error) {
	namespace, err := namespaceOf(ctx, id)
	if err != nil {
		return Caller{}, err
	}
	c := Caller{Identity: *id, Namespace: namespace, Authenticated: g.everybody == nil || g.everybody.Authenticated}
	if err := allow(c, method, rules[method].roles); err != nil {
		return Caller{}, err
	}
	return c, allowRequest(c, method, req)
}

// allowRequest is about what one request needs beside its method's roles.
func allowRequest(c Caller, method string, req any) error {
	rule := rules[method]
	if rule.request == nil {
		return nil
	}
	if roles := rule.request(req); roles != nil {
		return allow(c, method, roles)
	}
	return nil
}

func (g *Guard) refused(ctx context.Context, method string, err error) {
	if g.log == nil || ctx.Err() != nil {
		return
	}
	g.logs.mu.Lock()
	wait := g.logs.take(time.Now(), logRate)
	g.logs.mu.Unlock()
	if wait == 0 {
		g.log.WarnContext(ctx, "auth: refused", "method", method, "peer", peerOf(ctx), "err", err)
	}
}

// Registrar returns a registrar that puts the Guard before every service that is
// registered with it, inside of the server's own interceptors.
func (g *Guard) Registrar(r grpc.ServiceRegistrar) grpc.ServiceRegistrar {
	return &registrar{next: r, guard: g}
}

type registrar struct {
	next  grpc.ServiceRegistrar
	guard *Guard
}

// RegisterService registers a service whose methods the Guard stands before.
func (r *registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = slices.Clone(d.Methods), slices.Clone(d.Streams)
	for i := range d.Methods {
		d.Methods[i].Handler = r.guard.method(d.Methods[i].Handler)
	}
	for i := range d.Streams {
		s := &d.Streams[i]
		info := &grpc.StreamServerInfo{
			FullMethod: "/" + d.ServiceName + "/" + s.StreamName, IsClientStream: s.ClientStreams, IsServerStream: s.ServerStreams,
		}
		next := s.Handler
		s.Handler = func(srv any, ss grpc.ServerStream) error { return r.guard.Stream(srv, ss, info, next) }
	}
	r.next.RegisterService(&d, impl)
}

// method puts Unary between the server's interceptors and a method.
func (g *Guard) method(next grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, outer grpc.UnaryServerInterceptor) (any, error) {
		if outer == nil {
			return next(srv, ctx, dec, g.Unary)
		}
		return next(srv, ctx, dec,
			func(ctx context.Context, req any, info *grpc.UnaryServerInfo, last grpc.UnaryHandler) (any, error) {
				return outer(ctx, req, info, func(ctx context.Context, req any) (any, error) {
					return g.Unary(ctx, req, info, last)
				})
			})
	}
}
