package sdk

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// conversation is one stream of requests. Two goroutines run it: read gives the
// answers to who waits for them, write is the only one that sends.
type conversation struct {
	stream   grpc.BidiStreamingClient[amendsv1.ConverseRequest, amendsv1.ConverseResponse]
	capacity int // requests under way at most
	wake     chan struct{}
	over     func() // says once that it takes no more requests; more often does nothing

	mu      sync.Mutex
	last    uint64 // id
	pending map[uint64]*pending
	queue   []*amendsv1.Ask // to be sent
	cancels []uint64        // to be sent
	retired bool            // takes no more requests
}

// pending is a request whose caller waits.
type pending struct {
	done   chan struct{} // closed when one of these is known
	sent   bool          // or about to be: it may be carried out
	answer *amendsv1.Answer
	err    error // of the stream; nil with no answer: it was never sent
}

var errDraining = errors.New("the coordinator takes no more requests")

// open begins the stream, and returns when it is welcome.
func (t *conversation) open(ctx context.Context, conn grpc.ClientConnInterface) error {
	var err error
	t.stream, err = amendsv1.NewTransactionServiceClient(conn).Converse(ctx, grpc.MaxCallRecvMsgSize(maxReceive))
	if err != nil {
		return err
	}
	welcome, err := t.stream.Recv()
	if err != nil {
		return err
	}
	if welcome.GetDrain() {
		return errDraining
	}
	t.capacity = int(welcome.GetCapacity())
	return nil
}

// ask makes a request. Where the answer has to be asked for in another way it
// reports false: nothing was carried out.
func (t *conversation) ask(ctx context.Context, method string, args, reply any) (answered bool, err error) {
	body, err := proto.Marshal(args.(proto.Message))
	if err != nil || len(body) > maxAsk {
		return false, nil
	}
	id, p := t.begin(&amendsv1.Ask{Method: method, Request: body, TimeoutMs: timeoutOf(ctx)})
	if p == nil {
		return false, nil
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		t.forget(id)
		return true, status.FromContextError(ctx.Err()).Err()
	}
	switch {
	case p.err != nil:
		return true, p.err
	case p.answer == nil:
		return false, nil
	case len(p.answer.GetStatus()) > 0:
		return t.failed(amendsv1.DecodeStatus(p.answer.GetStatus()))
	}
	if err := proto.Unmarshal(p.answer.GetResponse(), reply.(proto.Message)); err != nil {
		return true, status.Errorf(codes.Internal, "sdk: the answer to %s cannot be read: %v", method, err)
	}
	return true, nil
}

// failed is the answer of an error. A refusal of the stream's credentials is not
// one: they are those of its beginning, and may be other ones by now.
func (t *conversation) failed(err error) (answered bool, _ error) {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		t.retire()
		return false, nil
	}
	return true, err
}

// timeoutOf is the time that is left, in milliseconds, 0 for any, as it travels.
func timeoutOf(ctx context.Context) uint32 {
	until, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(min(max(time.Until(until).Milliseconds(), 1), math.MaxUint32))
}

// begin has a request sent, unless the conversation is over or full.
func (t *conversation) begin(ask *amendsv1.Ask) (uint64, *pending) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.retired || len(t.pending) >= t.capacity {
		return 0, nil
	}
	t.last++
	ask.Id = t.last
	p := &pending{done: make(chan struct{})}
	t.pending[ask.Id] = p
	t.queue = append(t.queue, ask)
	t.nudge()
	return ask.Id, p
}

// forget has a request cancelled.
func (t *conversation) forget(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pending[id]; p != nil {
		delete(t.pending, id)
		if p.sent {
			t.cancels = append(t.cancels, id)
		}
		t.nudge()
	}
}

// retire takes no more requests: what is under way is answered, and the stream
// ends.
func (t *conversation) retire() {
	t.over()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retired = true
	t.nudge()
}

// nudge has write look for something to send.
func (t *conversation) nudge() {
	select {
	case t.wake <- struct{}{}:
	default: // it will
	}
}

// write sends requests until the stream is over.
func (t *conversation) write(ctx context.Context) error {
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		runtime.Gosched() // who else is about to ask shares the message
		for m := t.next(); m != nil; m = t.next() {
			if err := t.stream.Send(m); err != nil {
				return err
			}
		}
		t.mu.Lock()
		done := t.retired && len(t.pending) == 0 && len(t.cancels) == 0
		t.mu.Unlock()
		if done {
			return t.stream.CloseSend()
		}
	}
}

// next is the next message to send, or nil.
func (t *conversation) next() *amendsv1.ConverseRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &amendsv1.ConverseRequest{Cancel: t.cancels}
	t.cancels = nil
	n, size := 0, 0
	for ; n < len(t.queue) && n < asksPerBatch && size < batchBytes; n++ {
		ask := t.queue[n]
		if p := t.pending[ask.GetId()]; p != nil { // else nobody waits any more
			p.sent = true
			m.Asks = append(m.Asks, ask)
			size += len(ask.GetRequest())
		}
	}
	if t.queue = t.queue[n:]; len(t.queue) == 0 {
		t.queue = nil
	}
	if len(m.GetAsks()) == 0 && len(m.GetCancel()) == 0 {
		return nil
	}
	return m
}

// read hands out answers until the stream ends, and returns why it did.
func (t *conversation) read() error {
	for {
		m, err := t.stream.Recv()
		if err != nil {
			return err
		}
		if m.GetDrain() {
			t.retire()
		}
		t.mu.Lock()
		for _, answer := range m.GetAnswers() {
			if p := t.pending[answer.GetId()]; p != nil { // else its caller has given up
				delete(t.pending, answer.GetId())
				p.answer = answer
				close(p.done)
			}
		}
		if t.retired && len(t.pending) == 0 {
			t.nudge()
		}
		t.mu.Unlock()
	}
}

// end tells all who wait that there will be no answer.
func (t *conversation) end(err error) {
	t.retire()
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.pending {
		delete(t.pending, id)
		if p.sent {
			p.err = lost(err)
		}
		close(p.done)
	}
}

// lost is the error of requests that may have been carried out, and were not
// answered before their stream ended. A refusal of the stream is none of them.
func lost(err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled: // as of a request that was alone
		return err
	}
	return ErrUnavailable.With("the stream of requests ended: %v", err).GRPCStatus().Err()
}
