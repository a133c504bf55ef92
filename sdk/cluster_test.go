package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func over(c *Cluster) *Client { return NewClient(c, &ClientConfig{Logger: quiet()}) }

// TestMemberKilled starts and waits with 64 clients while a member dies.
func TestMemberKilled(t *testing.T) {
	f, m := newFakeCluster(t, 3)
	m[0].wait = func(ctx context.Context, r *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		<-ctx.Done() // its waits are under way when it dies
		return nil, ctx.Err()
	}
	c := dialFakes(t, m[0])
	reached(t, c, 3)
	client := over(c)
	var all sync.WaitGroup
	for n := range 64 {
		all.Go(func() {
			for i := range 10 {
				gid := fmt.Sprintf("g-%d-%d", n, i)
				run, err := Start(t.Context(), client, transfer, debitReq{}, &StartConfig{GID: gid})
				if err == nil {
					err = run.Wait(t.Context())
				}
				if err != nil {
					t.Errorf("%s: %v", gid, err)
				}
			}
		})
	}
	until(t, "starts", func() bool { return f.asked.Load() > 100 })
	m[0].kill()
	all.Wait()
	if len(f.created) != 640 {
		t.Errorf("%d of 640 transactions were created", len(f.created))
	}
}

// TestLostAnswer loses the answer to a start with the member that carried it out.
func TestLostAnswer(t *testing.T) {
	f, m := newFakeCluster(t, 2)
	var lost atomic.Bool
	for _, m := range m {
		m.start = func(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
			resp, err := f.startSaga(ctx, r)
			if lost.CompareAndSwap(false, true) {
				go m.kill()
				<-ctx.Done()
			}
			return resp, err
		}
	}
	c := dialFakes(t, m...)
	reached(t, c, 2)
	resp, err := amendsv1.NewTransactionServiceClient(c).StartSaga(t.Context(), &amendsv1.StartSagaRequest{Gid: "g"})
	if err != nil || resp.GetCreated() || f.created["g"] != 1 || f.asked.Load() != 2 {
		t.Errorf("%v, %v: created %d times, asked %d times", resp, err, f.created["g"], f.asked.Load())
	}
}

// TestRejectedElsewhere is a start that a member may have carried out, and that
// another one then turns away: it may have begun.
func TestRejectedElsewhere(t *testing.T) {
	for _, door := range []error{ErrOverloaded, ErrUnknownAction, status.Error(codes.PermissionDenied, "a proxy")} {
		_, m := newFakeCluster(t, 1)
		n := 0
		m[0].start = func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
			if n++; n == 1 {
				return nil, ErrUnavailable.With("after the commit")
			}
			return nil, door
		}
		_, err := Start(t.Context(), over(dialFakes(t, m...)), transfer, debitReq{}, nil)
		var u *UnknownError
		if !errors.As(err, &u) || !errors.Is(err, fromError(door)) || n != 2 {
			t.Errorf("%v after %d attempts: want an *UnknownError, and %v in it", err, n, door)
		}
	}
}

func TestNotOwnerIsUnknown(t *testing.T) {
	_, m := newFakeCluster(t, 1)
	m[0].start = func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		return nil, ErrNotOwner
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := Start(ctx, over(dialFakes(t, m...)), transfer, debitReq{}, nil)
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNotOwner) {
		t.Error(err)
	}
}

// TestOldCoordinators know nothing of members.
func TestOldCoordinators(t *testing.T) {
	f, m := newFakeCluster(t, 2)
	for _, m := range m {
		m.list = func(context.Context) ([]*amendsv1.Member, error) {
			return nil, status.Error(codes.Unimplemented, "unknown method ListMembers")
		}
	}
	one := dialFakes(t, m[0])
	run, err := Start(t.Context(), over(one), transfer, debitReq{}, nil)
	if err != nil || f.created[run.GID()] != 1 {
		t.Fatal(err)
	}
	if all := one.Members(); len(all) != 1 || all[0] != (Member{Address: m[0].address, Reached: true}) {
		t.Errorf("members %+v", all)
	}
	both := dialFakes(t, m...)
	reached(t, both, 2)
	m[0].kill()
	for range 4 {
		if err := over(both).Run(run.GID()).Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestMembersComeAndGo(t *testing.T) {
	f, m := newFakeCluster(t, 2)
	c := dialFakes(t, m[0])
	reached(t, c, 2)
	third := f.member(t)
	f.join(t, third)
	reached(t, c, 3)
	f.change(func() { third.drains = true })
	until(t, "the drain", func() bool { return c.Members()[2].Draining })
	before := len(c.now.Load().ready)
	for _, m := range []*fakeMember{m[0], third} { // m[0] was the one that was given
		f.leave(m)
		m.kill()
	}
	reached(t, c, 1)
	if before != 2 || c.Members()[0].Name != m[1].name {
		t.Errorf("%d members took requests beside the draining one; left is %+v", before, c.Members())
	}
}

// TestBalancer has one address for members that advertise none.
func TestBalancer(t *testing.T) {
	f, m := newFakeCluster(t, 3)
	f.change(func() { m[0].says, m[1].says, m[2].says = "", "", "" })
	c := dialAddresses(t, balancer(t, m...))
	reached(t, c, 3)
	if n := len(c.now.Load().attend); n != 3 {
		t.Errorf("%d links for 3 members", n)
	}
	m[1].kill()
	f.leave(m[1])
	reached(t, c, 2)
}

// TestUnreachableAddresses: what members advertise leads nowhere from here.
func TestUnreachableAddresses(t *testing.T) {
	f, m := newFakeCluster(t, 3)
	f.change(func() { m[0].says, m[1].says, m[2].says = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3" })
	reached(t, dialFakes(t, m...), 3)
	var polled atomic.Int64
	m[0].list = func(ctx context.Context) ([]*amendsv1.Member, error) {
		polled.Add(1)
		return f.list(m[0]), nil
	}

	var log bytes.Buffer
	var mu sync.Mutex
	c, err := Dial([]string{m[0].address}, &DialConfig{
		PollInterval: pollFast, Logger: slog.New(slog.NewTextHandler(&locked{mu: &mu, w: &log}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := range 50 {
		if _, err := Start(t.Context(), over(c), transfer, debitReq{}, &StartConfig{GID: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	said := func(port int) int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(log.String(), fmt.Sprintf("cannot be reached\" coordinator=m%d address=127.0.0.1:%d ", port, port))
	}
	until(t, "the warnings", func() bool { return said(2) > 0 && said(3) > 0 })
	polled.Store(0)
	until(t, "more polls", func() bool { return polled.Load() > 20 })
	if said(2) != 1 || said(3) != 1 || said(1) != 0 || f.asked.Load() != 50 {
		t.Errorf("%d starts; log:\n%s", f.asked.Load(), log.String())
	}
}

type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestSilentMember is one that is paused: its connections stay, and nothing
// comes.
func TestSilentMember(t *testing.T) {
	_, m := newFakeCluster(t, 2)
	arrived := make(chan struct{}, 8)
	var paused atomic.Bool
	m[0].wait = func(ctx context.Context, _ *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		paused.Store(true)
		arrived <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f := m[0].cluster
	m[0].list = func(ctx context.Context) ([]*amendsv1.Member, error) {
		if paused.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return f.list(m[0]), nil
	}
	c := dialFakes(t, m[0])
	reached(t, c, 2)
	run, err := Start(t.Context(), over(c), transfer, debitReq{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 4)
	for range cap(done) { // some of them at the one that is paused
		go func() { done <- run.Wait(t.Context()) }()
	}
	receive(t, "a wait at the paused member", arrived)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestDialMistakes(t *testing.T) {
	_, err := Dial(nil, &DialConfig{PollInterval: -1, RepeatFor: -1})
	for _, text := range []string{"no addresses", "PollInterval is -1ns", "RepeatFor is -1ns"} {
		mustSay(t, err, text)
	}
	_, err = Dial([]string{"127.0.0.1:1", "amends.example.org:7460"}, nil)
	mustSay(t, err, "no transport security set")
}

func TestClosed(t *testing.T) {
	_, m := newFakeCluster(t, 1)
	blocked := make(chan struct{})
	m[0].wait = func(ctx context.Context, _ *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		close(blocked)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c := dialFakes(t, m...)
	done := make(chan error, 1)
	go func() {
		_, err := amendsv1.NewTransactionServiceClient(c).WaitTransaction(t.Context(), &amendsv1.WaitTransactionRequest{Gid: "g"})
		done <- err
	}()
	receive(t, "the request", blocked)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{<-done, c.Invoke(t.Context(), "/x/Y", nil, nil)} {
		mustSay(t, err, "the cluster is closed")
	}
	_, err := c.NewStream(t.Context(), &grpc.StreamDesc{}, "/x/Y")
	mustSay(t, err, "the cluster is closed")
}

// TestOutsider answers, and says itself that it is no member: it left, and is
// about to end.
func TestOutsider(t *testing.T) {
	f, m := newFakeCluster(t, 2)
	c := dialFakes(t, m...)
	reached(t, c, 2)
	f.leave(m[0])
	reached(t, c, 1)
	f.leave(m[1])
	until(t, "nobody is a member", func() bool { return c.Members()[0].Name == "" })
	if _, err := Start(t.Context(), over(c), transfer, debitReq{}, nil); err != nil {
		t.Error(err)
	}
}
