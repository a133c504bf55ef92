package sdk

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const pollFast = 20 * time.Millisecond

// fakeCluster is members that share what a store would hold.
type fakeCluster struct {
	amendsv1.UnimplementedClusterServiceServer
	mu      sync.Mutex
	listed  []*fakeMember
	created map[string]int // by gid
	asked   atomic.Int64   // starts that arrived
}

// fakeMember is one of them, behind a port of its own.
type fakeMember struct {
	fakeCoordinator
	amendsv1.UnimplementedOperatorServiceServer
	cluster *fakeCluster
	name    string
	address string // where it listens
	says    string // where it says it does
	drains  bool
	srv     *grpc.Server
	served  chan error
	retried atomic.Int64                                      // RetryNow that arrived
	retry   func(context.Context) error                       // answers them
	list    func(context.Context) ([]*amendsv1.Member, error) // nil: the listed ones
}

func newFakeCluster(t testing.TB, n int) (*fakeCluster, []*fakeMember) {
	t.Helper()
	f := &fakeCluster{created: map[string]int{}}
	for range n {
		f.join(t, f.member(t))
	}
	return f, slices.Clone(f.listed)
}

// member makes one that is not listed yet.
func (f *fakeCluster) member(t testing.TB) *fakeMember {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	lis := listen(t)
	m := &fakeMember{cluster: f, address: lis.Addr().String(), served: make(chan error, 1)}
	m.says, m.name = m.address, fmt.Sprintf("m%d", len(f.listed)+1)
	m.heartbeat, m.streams = time.Second, make(chan *fakeStream, 16)
	m.start, m.wait = f.startSaga, f.waitFor
	m.srv = grpc.NewServer()
	amendsv1.RegisterTransactionServiceServer(m.srv, m)
	amendsv1.RegisterParticipantServiceServer(m.srv, m)
	amendsv1.RegisterOperatorServiceServer(m.srv, m)
	amendsv1.RegisterClusterServiceServer(m.srv, &asMember{fakeCluster: f, m: m})
	go func() { m.served <- m.srv.Serve(lis) }()
	t.Cleanup(func() {
		m.srv.Stop()
		<-m.served
	})
	return m
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func (f *fakeCluster) join(t testing.TB, m *fakeMember) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed = append(f.listed, m)
}

func (f *fakeCluster) leave(m *fakeMember) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed = slices.DeleteFunc(f.listed, func(other *fakeMember) bool { return other == m })
}

// change does something to a member that its list shows.
func (f *fakeCluster) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fakeCluster) startSaga(_ context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
	f.asked.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.created[r.GetGid()] > 0
	if !before {
		f.created[r.GetGid()]++
	}
	return &amendsv1.StartSagaResponse{Created: !before, Transaction: tx(running, nil)}, nil
}

func (f *fakeCluster) waitFor(_ context.Context, r *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.created[r.GetGid()] == 0 {
		return nil, ErrNotFound
	}
	return &amendsv1.WaitTransactionResponse{Transaction: tx(committed, nil)}, nil
}

// asMember is the cluster's list as a member tells it.
type asMember struct {
	*fakeCluster
	m *fakeMember
}

func (a *asMember) ListMembers(ctx context.Context, _ *amendsv1.ListMembersRequest) (*amendsv1.ListMembersResponse, error) {
	if a.m.list != nil {
		all, err := a.m.list(ctx)
		return &amendsv1.ListMembersResponse{Members: all}, err
	}
	return &amendsv1.ListMembersResponse{Members: a.fakeCluster.list(a.m)}, nil
}

// list is who the members are, as self tells it.
func (f *fakeCluster) list(self *fakeMember) (all []*amendsv1.Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.listed {
		all = append(all, &amendsv1.Member{Name: m.name, Address: m.says, Draining: m.drains, Self: m == self})
	}
	return all
}

// RetryNow stands for what is not safe to repeat.
func (m *fakeMember) RetryNow(ctx context.Context, _ *amendsv1.RetryNowRequest) (*amendsv1.RetryNowResponse, error) {
	m.retried.Add(1)
	if m.retry != nil {
		if err := m.retry(ctx); err != nil {
			return nil, err
		}
	}
	return &amendsv1.RetryNowResponse{}, nil
}

// kill ends a member as a crash would: connections break, nothing is answered.
func (m *fakeMember) kill() { m.srv.Stop() }

// dialFakes connects to the members given, quickly.
func dialFakes(t testing.TB, given ...*fakeMember) *Cluster {
	t.Helper()
	var addresses []string
	for _, m := range given {
		addresses = append(addresses, m.address)
	}
	return dialAddresses(t, addresses...)
}

func dialAddresses(t testing.TB, addresses ...string) *Cluster {
	t.Helper()
	c, err := Dial(addresses, &DialConfig{PollInterval: pollFast, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// until polls for something that is to happen.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// reached waits until exactly so many members are known and answer.
func reached(t *testing.T, c *Cluster, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d members reached", n), func() bool {
		all := c.Members()
		return len(all) == n && !slices.ContainsFunc(all, func(m Member) bool { return !m.Reached })
	})
}

// balancer passes connections on to backends in turn.
func balancer(t *testing.T, backends ...*fakeMember) (address string) {
	t.Helper()
	lis := listen(t)
	var conns sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	track := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, c)
	}
	conns.Go(func() {
		for n := 0; ; n++ {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			track(in)
			out, err := net.Dial("tcp", backends[n%len(backends)].address)
			if err != nil {
				in.Close()
				continue
			}
			track(out)
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				conns.Go(func() {
					_, _ = io.Copy(pair[0], pair[1]) // ends with either side
					pair[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		lis.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return lis.Addr().String()
}
