package sdk_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/sdk"
)

// mortal is one coordinator's access to the store and to the network, until it
// dies.
type mortal struct {
	store.Store
	net.Listener
	dead atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func (m *mortal) Close() error { return m.Listener.Close() } // the store is everybody's

// Accept notes whom it lets in.
func (m *mortal) Accept() (net.Conn, error) {
	conn, err := m.Listener.Accept()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conns = append(m.conns, conn); err == nil && m.dead.Load() {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	return conn, err
}

// die lets nothing in or out any more.
func (m *mortal) die() {
	m.dead.Store(true)
	_ = m.Listener.Close() // an error says that it is closed
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.conns {
		if conn != nil {
			_ = conn.Close() // as above
		}
	}
}

func (m *mortal) alive() error {
	if m.dead.Load() {
		return store.ErrClosed
	}
	return nil
}

func (m *mortal) Commit(ctx context.Context, b store.Batch) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Commit(ctx, b)
}

func (m *mortal) Join(ctx context.Context, as store.Member, ttl time.Duration) ([]store.Member, error) {
	if err := m.alive(); err != nil {
		return nil, err
	}
	return m.Store.Join(ctx, as, ttl)
}

func (m *mortal) Leases(ctx context.Context) ([]store.Holding, error) {
	if err := m.alive(); err != nil {
		return nil, err
	}
	return m.Store.Leases(ctx)
}

func (m *mortal) Release(ctx context.Context, owner string) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Release(ctx, owner)
}

func (m *mortal) Leave(ctx context.Context, name string) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Leave(ctx, name)
}

// coordinate runs a coordinator on a store until stop, which drains it, or kill.
func coordinate(t *testing.T, st store.Store, name string) (address string, stop, kill func()) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{Store: st, Listener: lis}
	c, err := coordinator.New(t.Context(), m, &coordinator.Config{
		Name: name, Address: lis.Addr().String(), LeaseTTL: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	run, endRun := context.WithCancel(context.Background())
	serve, endServe := context.WithCancel(context.Background())
	ran, served := make(chan error, 1), make(chan error, 1)
	go func() { ran <- c.Run(run) }()
	go func() { served <- c.Serve(serve, m) }()
	stop = sync.OnceFunc(func() {
		endRun() // first: it goes on answering while the others take its shards
		err := <-ran
		endServe()
		if err := errors.Join(err, <-served); err != nil && !m.dead.Load() {
			t.Errorf("%s: %v", name, err)
		}
	})
	return lis.Addr().String(), stop, func() {
		m.die()
		stop()
	}
}

// markOnce runs a saga to its end, in one request or in two.
func markOnce(ctx context.Context, client *sdk.Client, one bool) error {
	if one {
		return sdk.RunSaga(ctx, client, mark, "x", nil)
	}
	run, err := sdk.Start(ctx, client, mark, "x", nil)
	if err != nil {
		return err
	}
	return run.Wait(ctx)
}

// TestCoordinatorsComeAndGo replaces the coordinators of a cluster under load, of
// which one crashes: whoever uses a Cluster sees nothing of it, and nothing is
// done twice.
func TestCoordinatorsComeAndGo(t *testing.T) {
	st := memstore.New(nil)
	defer st.Close()
	first, stopFirst, _ := coordinate(t, st, "first")
	defer stopFirst()
	_, stopSecond, killSecond := coordinate(t, st, "second")
	defer stopSecond()
	_, stopThird, _ := coordinate(t, st, "third")
	defer stopThird()
	c, err := sdk.Dial([]string{first}, &sdk.DialConfig{PollInterval: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // after the participant's; it never fails
	db := stampsDB(t)
	stamping(t, c, db, "")

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client := sdk.NewClient(c, &sdk.ClientConfig{Logger: slog.New(slog.DiscardHandler)})
	var over atomic.Bool
	ended := make(chan struct{}, 10_000)
	var clients sync.WaitGroup
	for i := range 24 { // a crowd at each of them
		clients.Go(func() {
			for !over.Load() {
				if err := markOnce(ctx, client, i%2 == 0); err != nil {
					t.Error(err)
					cancel()
					return
				}
				ended <- struct{}{}
			}
		})
	}
	total := 0
	more := func() {
		for range 20 {
			select {
			case <-ended:
				total++
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			}
		}
		for len(ended) > 0 {
			<-ended
			total++
		}
	}
	for len(c.Members()) < 3 && ctx.Err() == nil {
		more() // until it knows where else to go
	}
	stopFirst() // whose address is the only one that was given
	more()
	_, stopFourth, _ := coordinate(t, st, "fourth")
	defer stopFourth()
	killSecond()
	more()
	stopThird()
	more()
	over.Store(true)
	clients.Wait()
	total += len(ended)
	done := stamps(t, db)
	if n := len(slices.Compact(done)); n != total || len(done) != total {
		t.Errorf("%d sagas have ended, and %d effects are there, %d of them different", total, len(done), n)
	}
}
