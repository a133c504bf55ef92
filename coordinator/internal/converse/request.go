package converse

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// request is one that is under way.
type request struct {
	id     uint64
	handle grpc.MethodHandler
	body   []byte
	ctx    context.Context
	cancel context.CancelFunc
}

// read begins requests until the client closes the stream, and then waits until
// they are answered.
func (c *conversation) read() error {
	for {
		m, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			c.noMore()
			c.end(c.workers.Wait())
			return nil
		}
		if err == nil {
			err = c.take(m)
		}
		if err != nil {
			c.end(err)
			return nil
		}
	}
}

// take begins what a message asks for. It blocks while the capacity is used up.
func (c *conversation) take(m *amendsv1.ConverseRequest) error {
	for _, id := range m.GetCancel() {
		c.mu.Lock()
		cancel := c.under[id]
		c.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	}
	for _, ask := range m.GetAsks() {
		select {
		case c.slots <- struct{}{}:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
		if err := c.begin(ask); err != nil {
			return err
		}
	}
	return nil
}

// begin has a goroutine perform a request: one that waits for work, whose stack
// has grown already, or a new one.
func (c *conversation) begin(ask *amendsv1.Ask) error {
	r := &request{id: ask.GetId(), handle: c.service.methods[ask.GetMethod()], body: ask.GetRequest()}
	if ms := ask.GetTimeoutMs(); ms > 0 {
		r.ctx, r.cancel = context.WithTimeout(c.ctx, time.Duration(ms)*time.Millisecond)
	} else {
		r.ctx, r.cancel = context.WithCancel(c.ctx)
	}
	if r.handle == nil {
		r.handle = func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			return nil, status.Errorf(codes.Unimplemented, "unknown method %q of TransactionService", ask.GetMethod())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, twice := c.under[r.id]; twice {
		r.cancel()
		return amendsv1.ErrInvalidArgument.With("a request with id %d is under way already", r.id)
	}
	if c.closed { // the stream has ended meanwhile
		r.cancel()
		return nil
	}
	c.under[r.id] = r.cancel
	if c.idle > 0 {
		c.idle--
		c.work <- r // there is room for as many as are idle
		return nil
	}
	c.workers.Go(func() error {
		c.serve(r)
		return nil
	})
	return nil
}

// serve performs requests, r first, until it is not needed.
func (c *conversation) serve(r *request) {
	for r != nil {
		c.answer(r, c.perform(r))
		c.mu.Lock()
		if c.closed || c.idle >= maxIdle {
			c.mu.Unlock()
			return
		}
		c.idle++
		c.mu.Unlock()
		r = <-c.work
	}
}

// perform has the method answer, as a server would have it.
func (c *conversation) perform(r *request) *amendsv1.Answer {
	defer r.cancel()
	resp, err := r.handle(c.service.impl, r.ctx, func(m any) error {
		if err := proto.Unmarshal(r.body, m.(proto.Message)); err != nil {
			return status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
		}
		return nil
	}, nil)
	answer := &amendsv1.Answer{Id: r.id}
	if err == nil {
		answer.Response, err = proto.Marshal(resp.(proto.Message))
	}
	if err != nil {
		answer.Status = amendsv1.EncodeStatus(err)
	}
	return answer
}

// answer has an answer sent.
func (c *conversation) answer(r *request, a *amendsv1.Answer) {
	c.mu.Lock()
	delete(c.under, r.id)
	c.out = append(c.out, a)
	c.mu.Unlock()
	c.flush()
}

// flush sends what there is to be sent, unless somebody is about to.
func (c *conversation) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sending {
		return
	}
	c.sending = true
	c.mu.Unlock()
	runtime.Gosched() // who else is about to answer shares the message
	c.mu.Lock()
	for m := c.next(); m != nil; m = c.next() {
		c.mu.Unlock()
		if err := c.stream.Send(m); err != nil {
			c.end(err)
		}
		for range m.GetAnswers() {
			<-c.slots
		}
		c.mu.Lock()
	}
	c.sending = false
}

// next is the next message to send, or nil. Called with mu held.
func (c *conversation) next() *amendsv1.ConverseResponse {
	if !c.welcome && !c.drain && len(c.out) == 0 {
		return nil
	}
	m := &amendsv1.ConverseResponse{Drain: c.drain}
	if c.welcome {
		m.Capacity = capacity
	}
	c.welcome, c.drain = false, false
	n, size := 0, 0
	for ; n < len(c.out) && n < batchAnswers && size < batchBytes; n++ {
		size += len(c.out[n].GetResponse()) + len(c.out[n].GetStatus())
	}
	m.Answers = c.out[:n:n]
	if c.out = c.out[n:]; len(c.out) == 0 {
		c.out = nil
	}
	return m
}
