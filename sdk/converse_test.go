package sdk

import (
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

type talkServer = amendsv1.TransactionService_ConverseServer

// conversing is a fake coordinator that counts the ways by which starts come.
type conversing struct {
	*fakeCoordinator
	alone, shared, opened atomic.Int64
	closed                chan struct{} // takes one for each stream that its client closed
}

func newConversing() *conversing {
	c := &conversing{fakeCoordinator: &fakeCoordinator{}, closed: make(chan struct{}, 100)}
	c.talk = c.answerAll
	return c
}

// starts says how starts are answered, whichever way they come.
func (c *conversing) starts(answer func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error)) {
	c.start = func(ctx context.Context, req *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		if method, _ := grpc.Method(ctx); strings.HasSuffix(method, "/Converse") {
			c.shared.Add(1)
		} else {
			c.alone.Add(1)
		}
		return answer(ctx, req)
	}
}

// answerAll answers starts until its client closes the stream.
func (c *conversing) answerAll(g talkServer) error {
	c.opened.Add(1)
	var mu sync.Mutex
	say := func(m *amendsv1.ConverseResponse) {
		mu.Lock()
		defer mu.Unlock()
		_ = g.Send(m) // the stream may be over
	}
	say(&amendsv1.ConverseResponse{Capacity: 100})
	under := map[uint64]context.CancelFunc{}
	var running sync.WaitGroup
	defer running.Wait()
	for {
		m, err := g.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				c.closed <- struct{}{}
				return nil
			}
			return err
		}
		for _, id := range m.GetCancel() {
			under[id]()
		}
		for _, ask := range m.GetAsks() {
			ctx, cancel := context.WithCancel(g.Context())
			under[ask.GetId()] = cancel
			running.Go(func() { say(&amendsv1.ConverseResponse{Answers: []*amendsv1.Answer{c.answerOne(ctx, ask)}}) })
		}
	}
}

func (c *conversing) answerOne(ctx context.Context, ask *amendsv1.Ask) *amendsv1.Answer {
	req := new(amendsv1.StartSagaRequest)
	err := proto.Unmarshal(ask.GetRequest(), req)
	var resp *amendsv1.StartSagaResponse
	if err == nil {
		resp, err = c.start(ctx, req)
	}
	if err != nil {
		return &amendsv1.Answer{Id: ask.GetId(), Status: amendsv1.EncodeStatus(err)}
	}
	raw, _ := proto.Marshal(resp) // it can be
	return &amendsv1.Answer{Id: ask.GetId(), Response: raw}
}

// crowded returns a connection to the fake on which there is always a crowd, once
// it has a stream for it.
func crowded(t *testing.T, c *conversing) *conversations {
	t.Helper()
	conn := newConversations(serve(t, c.fakeCoordinator))
	conn.busy.Add(crowd)
	conn.awaitTalk(t)
	return conn
}

func (c *conversations) awaitTalk(t *testing.T) *conversation {
	t.Helper()
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if talk := c.open(""); talk != nil {
			return talk
		}
	}
	t.Fatalf("no conversation after %s", patience)
	return nil
}

func startOver(ctx context.Context, conn grpc.ClientConnInterface, req *amendsv1.StartSagaRequest, opts ...grpc.CallOption) error {
	resp, err := amendsv1.NewTransactionServiceClient(conn).StartSaga(ctx, req, opts...)
	if err == nil && !resp.GetCreated() {
		return errors.New("the answer is another one")
	}
	return err
}

func created(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
	return &amendsv1.StartSagaResponse{Created: true}, nil
}

// TestSameErrors: an error is the same value whichever way its request went.
func TestSameErrors(t *testing.T) {
	all := map[string]error{
		"plain": errors.New("no status"), "status": status.Error(codes.DataLoss, "x"), "context": context.DeadlineExceeded,
		"wrapped": errors.Join(errors.New("because"), amendsv1.ErrDecided.With("of that")),
		"detailed": amendsv1.ErrOverloaded.With("full").WithMetadata("one", "\xff"). // of two, the order on the wire is any
												WithRetryAfter(1234 * time.Millisecond),
	}
	for _, e := range []*amendsv1.Error{
		ErrNotFound, ErrGIDConflict, ErrBranchConflict, ErrInvalidGID, ErrInvalidDefinition, ErrInvalidArgument, ErrUnknownAction,
		ErrTooLarge, ErrOverloaded, ErrDecided, ErrDeadlinePassed, ErrWrongKind, ErrTryPending, ErrRefused, ErrRolledBack,
		ErrUnavailable, ErrNotOwner, amendsv1.ErrIllegalVerb, amendsv1.ErrETag, amendsv1.ErrRequestConflict, amendsv1.ErrInternal,
	} {
		all[e.Reason] = e.With("of %s", e.Reason)
	}
	c := newConversing()
	c.starts(func(_ context.Context, req *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		return nil, all[req.GetGid()]
	})
	conn := crowded(t, c)
	for gid := range all {
		req := &amendsv1.StartSagaRequest{Gid: gid}
		before := c.shared.Load()
		shared, alone := startOver(t.Context(), conn, req), startOver(t.Context(), conn.ClientConn, req)
		if c.shared.Load() != before+1 {
			t.Errorf("%s did not share the stream", gid)
		}
		if !proto.Equal(status.Convert(shared).Proto(), status.Convert(alone).Proto()) {
			t.Errorf("%s: %v shared, %v alone", gid, shared, alone)
		}
		got, want := &CoordinatorError{}, &CoordinatorError{}
		if errors.As(fromError(shared), &got) != errors.As(fromError(alone), &want) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v shared, %#v alone", gid, got, want)
		}
	}
}

// TestGoAlone: what may not share a stream does not.
func TestGoAlone(t *testing.T) {
	c := newConversing()
	c.starts(created)
	conn := crowded(t, c)
	own := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer other")
	var header metadata.MD
	for what, ask := range map[string]func() error{
		"large": func() error {
			return startOver(t.Context(), conn, &amendsv1.StartSagaRequest{Name: strings.Repeat("x", maxAsk)})
		},
		"metadata": func() error { return startOver(own, conn, &amendsv1.StartSagaRequest{}) },
		"options":  func() error { return startOver(t.Context(), conn, &amendsv1.StartSagaRequest{}, grpc.Header(&header)) },
	} {
		if err := ask(); err != nil || c.shared.Load() != 0 {
			t.Errorf("%s: %v, %d shared", what, err, c.shared.Load())
		}
	}
	if _, err := Start(t.Context(), NewClient(unary{conn}, &ClientConfig{Logger: quiet()}), transfer, debitReq{}, nil); err != nil || c.shared.Load() != 0 {
		t.Errorf("a client that wants it: %v, %d shared", err, c.shared.Load())
	}
	conn.busy.Add(-2)
	if err := startOver(t.Context(), conn, &amendsv1.StartSagaRequest{}); err != nil || c.shared.Load() != 0 {
		t.Errorf("hardly anybody else: %v, %d shared", err, c.shared.Load())
	}
	conn.busy.Add(2)
	if err := startOver(t.Context(), conn, &amendsv1.StartSagaRequest{}); err != nil || c.shared.Load() != 1 {
		t.Errorf("the rest: %v, %d shared", err, c.shared.Load())
	}
}

// TestNoConversations: an older coordinator is asked once, and else as ever.
func TestNoConversations(t *testing.T) {
	c := newConversing()
	c.talk = func(g talkServer) error {
		c.opened.Add(1)
		return c.UnimplementedTransactionServiceServer.Converse(g)
	}
	c.starts(created)
	conn := newConversations(serve(t, c.fakeCoordinator))
	conn.busy.Add(crowd)
	known := func() bool {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		l := conn.lines[""]
		return l != nil && !l.opening
	}
	for n := int64(1); ; n++ {
		was := known()
		if err := startOver(t.Context(), conn, &amendsv1.StartSagaRequest{}); err != nil || c.alone.Load() != n {
			t.Fatalf("request %d: %v, %d alone", n, err, c.alone.Load())
		}
		if was {
			break
		}
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if rest := time.Until(conn.lines[""].next); c.opened.Load() != 1 || rest < speechless/2 {
		t.Errorf("opened %d times, and again in %s", c.opened.Load(), rest)
	}
}

// TestSharedContext: a caller does not wait longer than its context lasts, and
// the coordinator hears of it.
func TestSharedContext(t *testing.T) {
	c := newConversing()
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	c.starts(func(ctx context.Context, _ *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	conn := crowded(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { asked <- startOver(ctx, conn, &amendsv1.StartSagaRequest{}) }()
	receive(t, "the request", begun)
	cancel()
	if err := receive(t, "the answer", asked); status.Code(err) != codes.Canceled {
		t.Errorf("it ended with %v", err)
	}
	receive(t, "the cancellation", ended)
}

// TestLostConversation: what was sent may be carried out, and nobody is told that
// it was refused.
func TestLostConversation(t *testing.T) {
	for what, end := range map[string]error{
		"lost": status.Error(codes.Unavailable, "lost"), "over": nil, "expired": ErrUnauthenticated.With("expired"),
		"wrong": ErrInvalidArgument.With("wrong"), "large": status.Error(codes.ResourceExhausted, "too large"),
	} {
		t.Run(what, func(t *testing.T) {
			c := newConversing()
			c.talk = func(g talkServer) error {
				_ = g.Send(&amendsv1.ConverseResponse{Capacity: 100}) // it shows
				if _, err := g.Recv(); err != nil {
					return err
				}
				return end
			}
			conn := crowded(t, c)
			err := startOver(t.Context(), conn, &amendsv1.StartSagaRequest{})
			if !errors.Is(fromError(err), ErrUnavailable) || rejected(fromError(err)) {
				t.Errorf("it ended with %v, want ErrUnavailable", err)
			}
		})
	}
}

// TestUnsent: what was never sent is asked for alone.
func TestUnsent(t *testing.T) {
	talk := &conversation{capacity: 2, over: func() {}, wake: make(chan struct{}, 1), pending: map[uint64]*pending{}}
	type result struct {
		answered bool
		err      error
	}
	results := make(chan result, 3)
	ask := func() {
		answered, err := talk.ask(t.Context(), "StartSaga", &amendsv1.StartSagaRequest{}, &amendsv1.StartSagaResponse{})
		results <- result{answered, err}
	}
	go ask()
	receive(t, "the first", talk.wake)
	if m := talk.next(); len(m.GetAsks()) != 1 {
		t.Fatalf("to be sent is %v", m)
	}
	go ask()
	receive(t, "the second", talk.wake)
	ask() // over the capacity
	if r := receive(t, "the third", results); r.answered {
		t.Errorf("over the capacity: %+v", r)
	}
	talk.end(status.Error(codes.Unavailable, "lost"))
	first, second := receive(t, "an end", results), receive(t, "an end", results)
	if first.answered == second.answered || first.err == nil && second.err == nil {
		t.Errorf("they ended with %+v and %+v: want one that may be carried out, and one that was not", first, second)
	}
	ask()
	if r := receive(t, "one that is late", results); r.answered {
		t.Errorf("after the end: %+v", r)
	}
}

// TestStaleCredentials: a stream has those of its beginning. What it is refused
// is asked for alone, and there is another stream.
func TestStaleCredentials(t *testing.T) {
	c := newConversing()
	var stale atomic.Bool
	c.starts(func(ctx context.Context, _ *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		if method, _ := grpc.Method(ctx); stale.Load() && strings.HasSuffix(method, "/Converse") {
			return nil, ErrUnauthenticated.With("expired")
		}
		return created(ctx, nil)
	})
	conn := crowded(t, c)
	stale.Store(true)
	if err := startOver(t.Context(), conn, &amendsv1.StartSagaRequest{}); err != nil || c.alone.Load() != 1 {
		t.Errorf("%v, %d alone", err, c.alone.Load())
	}
	receive(t, "the end of the stream", c.closed)
	stale.Store(false)
	conn.awaitTalk(t)
	if err := startOver(t.Context(), conn, &amendsv1.StartSagaRequest{}); err != nil || c.alone.Load() != 1 {
		t.Errorf("on another stream: %v, %d alone", err, c.alone.Load())
	}
}

// TestDrainedConversation: what is under way is answered, what comes goes
// elsewhere, and the stream is closed when all is done.
func TestDrainedConversation(t *testing.T) {
	c := newConversing()
	begun, release := make(chan struct{}, 1), make(chan struct{})
	drain := make(chan struct{})
	c.talk = func(g talkServer) error {
		go func() {
			<-drain
			_ = g.Send(&amendsv1.ConverseResponse{Drain: true}) // nobody else sends just now
		}()
		return c.answerAll(g)
	}
	c.starts(func(ctx context.Context, req *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		if req.GetGid() == "waits" {
			begun <- struct{}{}
			<-release
		}
		return created(ctx, req)
	})
	conn := crowded(t, c)
	talk := conn.awaitTalk(t)
	asked := make(chan error, 1)
	go func() { asked <- startOver(t.Context(), conn, &amendsv1.StartSagaRequest{Gid: "waits"}) }()
	receive(t, "the request", begun)
	close(drain)
	for until := time.Now().Add(patience); conn.open("") == talk; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it goes on with a stream that drains")
		}
	}
	if err := startOver(t.Context(), conn, &amendsv1.StartSagaRequest{}); err != nil {
		t.Errorf("meanwhile: %v", err)
	}
	close(release)
	if err := receive(t, "the answer", asked); err != nil {
		t.Errorf("what was under way: %v", err)
	}
	receive(t, "the end of the stream", c.closed)
}
