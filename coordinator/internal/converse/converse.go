// Package converse serves TransactionService.Converse: many requests of one
// client on one stream, in batches both ways, for a fraction of what as many
// RPCs cost.
//
// It knows nothing of what it carries. Each request is given to its method as
// the server itself would call it, with the Guard and the Forwarder before it,
// in the stream's context: so it is authenticated, counted, forwarded and
// refused as if it had come alone.
package converse

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Bounds that nobody has needed to change.
const (
	capacity     = 1024    // requests under way on a stream, until their answers are sent
	batchAnswers = 256     // a message of answers ends with the one that brings it to this,
	batchBytes   = 1 << 20 // or to so many bytes
	maxIdle      = 64      // goroutines of a stream that wait for its next request
)

// Server serves conversations until it drains. All methods are safe for
// concurrent use.
type Server struct {
	draining context.Context // ends with Drain
	drain    context.CancelFunc
}

// New returns a Server. Nothing needs to be closed.
func New() *Server {
	s := &Server{}
	s.draining, s.drain = context.WithCancel(context.Background())
	return s
}

// Drain asks all clients, those that come later too, to make no more requests in
// their conversations and to end them when what is under way is answered.
func (s *Server) Drain() { s.drain() }

// Registrar returns a registrar that serves Converse with the other methods of
// the same service, as they are registered: whatever is to stand before each
// request has to be put there by who calls it.
func (s *Server) Registrar(r grpc.ServiceRegistrar) grpc.ServiceRegistrar {
	return &registrar{next: r, server: s}
}

type registrar struct {
	next   grpc.ServiceRegistrar
	server *Server
}

// RegisterService registers a service.
func (r *registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if desc.ServiceName != amendsv1.TransactionService_ServiceDesc.ServiceName {
		r.next.RegisterService(desc, impl)
		return
	}
	d := *desc
	d.Streams = slices.Clone(d.Streams)
	service := &service{server: r.server, impl: impl, methods: map[string]grpc.MethodHandler{}}
	for _, m := range d.Methods {
		service.methods[m.MethodName] = m.Handler
	}
	for i := range d.Streams {
		if next := d.Streams[i].Handler; d.Streams[i].StreamName == "Converse" {
			d.Streams[i].Handler = func(_ any, ss grpc.ServerStream) error { return next(service, ss) }
		}
	}
	r.next.RegisterService(&d, impl)
}

// service is TransactionService, of which only Converse is called.
type service struct {
	amendsv1.UnimplementedTransactionServiceServer
	server  *Server
	impl    any
	methods map[string]grpc.MethodHandler
}

// Converse serves one client's stream. It returns when the client has closed it
// and everything is answered, or with what ended it, which ends what is under
// way, too.
func (s *service) Converse(stream grpc.BidiStreamingServer[amendsv1.ConverseRequest, amendsv1.ConverseResponse]) error {
	c := &conversation{
		service: s, stream: stream, welcome: true, ended: make(chan struct{}), work: make(chan *request, maxIdle),
		slots: make(chan struct{}, capacity), under: map[uint64]context.CancelFunc{},
	}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithCancel(stream.Context())
	defer c.noMore()
	defer cancel()
	c.flush()
	c.reading.Go(c.read) // until the stream ends, by our return at the latest
	for draining := s.server.draining.Done(); ; {
		select {
		case <-draining:
			draining = nil
			c.mu.Lock()
			c.drain = true
			c.mu.Unlock()
			c.flush()
		case <-c.ended:
			return c.err
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// end ends the conversation with err; only the first call counts.
func (c *conversation) end(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.ended)
	})
}

// noMore lets no more requests in.
func (c *conversation) noMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.work)
	}
}

// conversation is one client's stream.
type conversation struct {
	service *service
	stream  grpc.BidiStreamingServer[amendsv1.ConverseRequest, amendsv1.ConverseResponse]
	ctx     context.Context // of all requests
	slots   chan struct{}   // holds one for each request until its answer is sent
	work    chan *request   // to goroutines that wait for one, as many as it holds

	once  sync.Once
	ended chan struct{}
	err   error // why; set before ended is closed

	reading, workers errgroup.Group

	mu      sync.Mutex
	closed  bool
	idle    int // goroutines that wait for work
	under   map[uint64]context.CancelFunc
	out     []*amendsv1.Answer
	welcome bool // to be sent
	drain   bool // to be sent
	sending bool // somebody does
}
