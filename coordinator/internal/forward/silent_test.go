package forward_test

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// swallower passes connections on to an address, and from the call of Swallow on
// takes what comes on those that are open, and gives nothing to anybody: a link
// that was cut without a word. New ones it passes on.
type swallower struct {
	net.Listener
	to     string
	opened atomic.Int64

	mu      sync.Mutex
	swallow []*atomic.Bool
}

func (s *swallower) Swallow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cut := range s.swallow {
		cut.Store(true)
	}
}

// run serves until the listener is closed and both ends are.
func (s *swallower) run() error {
	var g errgroup.Group
	for {
		in, err := s.Accept()
		if err != nil {
			_ = g.Wait() // how connections ended is of no interest
			return nil
		}
		out, err := net.Dial("tcp", s.to)
		if err != nil {
			return err
		}
		s.opened.Add(1)
		cut := new(atomic.Bool)
		s.mu.Lock()
		s.swallow = append(s.swallow, cut)
		s.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			g.Go(func() error {
				defer pair[1].Close()
				_, err := io.Copy(writer(func(b []byte) (int, error) {
					if cut.Load() {
						return len(b), nil
					}
					return pair[1].Write(b)
				}), pair[0])
				return err
			})
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// TestSilentLink: a request whose link to the owner is cut without a word does
// not hang to its deadline: the link is given up, and the request sent anew.
// gRPC pings every 10 s at the most, so only AMENDS_LONG has it wait.
func TestSilentLink(t *testing.T) {
	if os.Getenv("AMENDS_LONG") == "" {
		return
	}
	asked, owner := pair(t, patience)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link := &swallower{Listener: lis, to: owner.member.Address}
	var g errgroup.Group
	g.Go(link.run)
	t.Cleanup(func() {
		_ = lis.Close() // which ends run
		asked.stop()    // and this the connections
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	asked.own(store.Member{Name: "owner", Address: lis.Addr().String()})
	arrived := make(chan struct{}, 10)
	var asks atomic.Int64
	owner.start = func(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		arrived <- struct{}{}
		if asks.Add(1) == 1 {
			<-ctx.Done() // its answer would not arrive
			return nil, ctx.Err()
		}
		return started(r.GetGid()), nil
	}
	var got *amendsv1.StartSagaResponse
	var answer errgroup.Group
	began := time.Now()
	answer.Go(func() error {
		var err error
		got, err = asked.ask(t.Context(), &amendsv1.StartSagaRequest{Gid: "g"})
		return err
	})
	<-arrived
	link.Swallow()
	if err := answer.Wait(); err != nil || got.GetTransaction().GetGid() != "g" {
		t.Errorf("%v, %v", got, err)
	}
	t.Logf("answered after %v, over %d connections", time.Since(began), link.opened.Load())
	if n := link.opened.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}
