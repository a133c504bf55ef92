package forward

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Registrar returns a registrar that puts the Forwarder before every service
// that is registered with it, and inside of what r puts there: a Guard.
func (f *Forwarder) Registrar(r grpc.ServiceRegistrar) grpc.ServiceRegistrar {
	return &registrar{next: r, f: f}
}

type registrar struct {
	next grpc.ServiceRegistrar
	f    *Forwarder
}

// RegisterService registers a service whose requests are forwarded.
func (r *registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = slices.Clone(d.Methods), slices.Clone(d.Streams)
	for i := range d.Methods {
		d.Methods[i].Handler = r.f.method(d.Methods[i].Handler)
	}
	for i := range d.Streams {
		s := &d.Streams[i]
		if "/"+d.ServiceName+"/"+s.StreamName == amendsv1.AdminService_WatchTransaction_FullMethodName {
			next := s.Handler
			s.Handler = func(srv any, ss grpc.ServerStream) error { return r.f.watch(srv, ss, next) }
		}
	}
	r.next.RegisterService(&d, impl)
}

// method puts the Forwarder between the interceptors outside of it and a method.
func (f *Forwarder) method(next grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, outer grpc.UnaryServerInterceptor) (any, error) {
		if outer == nil {
			return next(srv, ctx, dec, f.unary)
		}
		return next(srv, ctx, dec,
			func(ctx context.Context, req any, info *grpc.UnaryServerInfo, last grpc.UnaryHandler) (any, error) {
				return outer(ctx, req, info, func(ctx context.Context, req any) (any, error) {
					return f.unary(ctx, req, info, last)
				})
			})
	}
}

// watch forwards a WatchTransaction, which hears of events at once where they
// happen. When the owner is lost, this member goes on with it from the store,
// after the last event that was sent.
func (f *Forwarder) watch(srv any, ss grpc.ServerStream, next grpc.StreamHandler) error {
	ctx, free := f.untilEnd(ss.Context())
	defer free()
	req := new(amendsv1.WatchTransactionRequest)
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	err := f.watching(ctx, srv, ss, req, next)
	if err != nil && errors.Is(context.Cause(ctx), errEnding) {
		return errEnding
	}
	return err
}

func (f *Forwarder) watching(ctx context.Context, srv any, ss grpc.ServerStream, req *amendsv1.WatchTransactionRequest, next grpc.StreamHandler) error {
	if to := byGID(f.cfg.Namespace(ctx), req); to.known() && !f.cfg.Forwarded(ctx) {
		if owner, here := to.owner(f); !here && owner.Address != "" && owner.Name != f.cfg.Self {
			if err := f.relay(ctx, ss, req, to, owner); !errors.Is(err, amendsv1.ErrNotOwner) {
				return err
			}
			f.repeated.Add(1)
		}
	}
	return next(srv, &watched{ServerStream: ss, ctx: ctx, req: req})
}

// relay sends on what another member sends, and leaves in req where it stopped.
func (f *Forwarder) relay(ctx context.Context, ss grpc.ServerStream, req *amendsv1.WatchTransactionRequest, to target, owner store.Member) error {
	conn, err := f.conns.to(owner.Address)
	if err != nil {
		return err
	}
	out, err := f.cfg.Vouch(f.outgoing(ctx), owner.Name, amendsv1.AdminService_WatchTransaction_FullMethodName, req)
	if err != nil {
		return err
	}
	out, land := f.fly(out, to, owner)
	defer land()
	f.sent.Add(1)
	stream, err := amendsv1.NewAdminServiceClient(conn).WatchTransaction(out, proto.CloneOf(req))
	for err == nil {
		var resp *amendsv1.WatchTransactionResponse
		if resp, err = stream.Recv(); err == nil {
			if err := ss.SendMsg(resp); err != nil {
				return err
			}
			req.AfterSeq = resp.GetEvent().GetSeq()
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return f.failure(ctx, out, to, owner, err)
}

// watched is a stream whose one request was read already.
type watched struct {
	grpc.ServerStream
	ctx context.Context
	req *amendsv1.WatchTransactionRequest // nil: it was read again
}

// Context ends with the stream, and when the member stops.
func (w *watched) Context() context.Context { return w.ctx }

// RecvMsg gives the request, once.
func (w *watched) RecvMsg(m any) error {
	if w.req == nil {
		return w.ServerStream.RecvMsg(m)
	}
	proto.Merge(m.(proto.Message), w.req)
	w.req = nil
	return nil
}
