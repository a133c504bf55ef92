package sdktest

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// link is a connection whose other end can be cut off and replaced.
type link struct {
	mu  sync.Mutex
	end *linkEnd
}

// linkEnd is one coordinator at the end of the link, until it dies.
type linkEnd struct {
	conn grpc.ClientConnInterface
	life context.Context
	die  context.CancelFunc
}

var errCut = status.Error(codes.Unavailable, "sdktest: the coordinator is down")

func (l *link) plug(conn grpc.ClientConnInterface) {
	life, die := context.WithCancel(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = &linkEnd{conn: conn, life: life, die: die}
}

// cut ends every RPC that is under way, and refuses new ones until the next
// plug.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end.die()
}

func (l *link) current() *linkEnd {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// during returns a context that ends with ctx and with the coordinator.
func (e *linkEnd) during(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// explain turns whatever became of an RPC when the coordinator died into what a
// caller across the network sees.
func (e *linkEnd) explain(ctx context.Context, err error) error {
	if err != nil && e.life.Err() != nil && ctx.Err() == nil {
		return errCut
	}
	return err
}

// Invoke implements grpc.ClientConnInterface.
func (l *link) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	e := l.current()
	if e.life.Err() != nil {
		return errCut
	}
	inner, done := e.during(ctx)
	defer done()
	return e.explain(ctx, e.conn.Invoke(inner, method, args, reply, opts...))
}

// NewStream implements grpc.ClientConnInterface.
func (l *link) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	e := l.current()
	if e.life.Err() != nil {
		return nil, errCut
	}
	inner, done := e.during(ctx)
	s, err := e.conn.NewStream(inner, desc, method, opts...)
	if err != nil {
		done()
		return nil, e.explain(ctx, err)
	}
	return &linkStream{ClientStream: s, end: e, ctx: ctx, done: done}, nil
}

// linkStream is a stream that breaks when the coordinator dies.
type linkStream struct {
	grpc.ClientStream
	end  *linkEnd
	ctx  context.Context // the caller's
	done context.CancelFunc
}

// RecvMsg implements grpc.ClientStream.
func (s *linkStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.done()
	}
	return s.end.explain(s.ctx, err)
}
