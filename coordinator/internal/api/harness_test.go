package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// fakeEngine keeps transactions in a store and never calls anybody. Tests move
// them by hand.
type fakeEngine struct {
	st    store.Store
	lease store.Lease

	mu      sync.Mutex
	changed map[string]chan store.Record
	now     time.Time
	try     func(ctx context.Context, gid string, b tcc.Branch) ([]byte, error)
	err     error  // what every method answers when it is set
	actor   string // of the last Abort
	deaf    bool   // Changed never wakes anybody
	subs    int    // subscriptions that were not given back
	cmd     api.Command
	bulks   int // that were started
	full    map[string]bool
}

var (
	_ api.Engine = (*fakeEngine)(nil)
	_ api.Engine = (*engine.Engine)(nil)
)

func (e *fakeEngine) create(ctx context.Context, rec store.Record) (store.Record, bool, error) {
	if err := e.failure(); err != nil {
		return store.Record{}, false, err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %q", rec.Definition, slices.Collect(maps.Values(rec.Labels)))
	rec.Digest = sum.Sum(nil)
	switch old, err := e.st.Load(ctx, rec.GID); {
	case err == nil && bytes.Equal(old.Digest, rec.Digest):
		return old, false, nil
	case err == nil:
		return store.Record{}, false, amendsv1.ErrGIDConflict.With("gid %q was started with other content", rec.GID)
	}
	rec.State, rec.CreatedAt = uint8(txn.Running), e.tick()
	if rec.Kind != wire.KindBulk {
		rec.Namespace, _ = wire.Split(rec.GID)
	}
	rec, err := e.write(ctx, rec, "started")
	return rec, true, err
}

func (e *fakeEngine) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// fail has every method answer err, those that wait included; nil: it is over.
func (e *fakeEngine) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
	for gid, ch := range e.changed {
		close(ch)
		delete(e.changed, gid)
	}
}

// tick is a clock that goes on by a second each time it is read.
func (e *fakeEngine) tick() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = e.now.Add(time.Second)
	return e.now
}

// write commits the next version of rec with one event of each type, and wakes
// who listens.
func (e *fakeEngine) write(ctx context.Context, rec store.Record, types ...string) (store.Record, error) {
	rec.Version++
	rec.UpdatedAt = rec.CreatedAt.Add(time.Duration(rec.Version) * time.Millisecond)
	if txn.State(rec.State).Finished() {
		rec.FinishedAt = rec.UpdatedAt
	}
	var events []store.Event
	for _, typ := range types {
		rec.EventSeq++
		events = append(events, store.Event{
			GID: rec.GID, Seq: rec.EventSeq, At: rec.UpdatedAt, Type: typ, Data: []byte(`{"n":1}`), Hash: []byte{1},
		})
		rec.EventHash = []byte{1}
	}
	b := store.Batch{Leases: []store.Lease{e.lease}, Writes: []store.Write{{Record: rec, Events: events}}}
	if err := e.st.Commit(ctx, b); err != nil {
		return rec, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ch := e.changed[rec.GID]; ch != nil && !e.deaf {
		close(ch)
		delete(e.changed, rec.GID)
	}
	return rec, nil
}

func (e *fakeEngine) Full(gid string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.full[gid]
}

func (e *fakeEngine) StartSaga(ctx context.Context, gid string, d *saga.Definition, labels map[string]string) (store.Record, bool, error) {
	def, err := d.Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	body, err := saga.New(d).Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	return e.create(ctx, store.Record{GID: gid, Kind: "saga", Name: d.Name, Definition: def, Body: body, Labels: labels})
}

func (e *fakeEngine) BeginTCC(ctx context.Context, gid string, d *tcc.Definition, labels map[string]string) (store.Record, bool, error) {
	def, err := d.Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	body, err := tcc.New(d).Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	return e.create(ctx, store.Record{GID: gid, Kind: "tcc", Name: d.Name, Definition: def, Body: body, Labels: labels})
}

func (e *fakeEngine) Try(ctx context.Context, gid string, b tcc.Branch) ([]byte, error) {
	if _, err := e.Get(ctx, gid); err != nil {
		return nil, err
	}
	return e.try(ctx, gid, b)
}

func (e *fakeEngine) BeginTry(ctx context.Context, gid string, d *tcc.Definition, labels map[string]string, b tcc.Branch) ([]byte, error) {
	if _, _, err := e.BeginTCC(ctx, gid, d, labels); err != nil {
		return nil, err
	}
	return e.Try(ctx, gid, b)
}

func (e *fakeEngine) Commit(ctx context.Context, gid string) (store.Record, error) {
	return e.move(ctx, gid, txn.Committing, "")
}

func (e *fakeEngine) Abort(ctx context.Context, gid, actor, reason string) (store.Record, error) {
	e.mu.Lock()
	e.actor = actor
	e.mu.Unlock()
	return e.move(ctx, gid, txn.RollingBack, txn.Reason{Code: txn.CodeAborted, Message: reason}.String())
}

// move sets a transaction's state.
func (e *fakeEngine) move(ctx context.Context, gid string, to txn.State, reason string) (store.Record, error) {
	rec, err := e.Get(ctx, gid)
	if err != nil {
		return rec, err
	}
	rec.State, rec.Reason = uint8(to), reason
	return e.write(ctx, rec, "moved")
}

func (e *fakeEngine) Get(ctx context.Context, gid string) (store.Record, error) {
	if err := e.failure(); err != nil {
		return store.Record{}, err
	}
	return e.st.Load(ctx, gid)
}

func (e *fakeEngine) Wait(ctx context.Context, gid string) (store.Record, error) {
	for {
		changed, stop := e.Changed(gid)
		rec, err := e.Get(ctx, gid)
		if s := txn.State(rec.State); err != nil || s.Finished() || s == txn.Parked {
			stop()
			return rec, err
		}
		select {
		case <-changed:
			stop()
		case <-ctx.Done():
			stop()
			return store.Record{}, fmt.Errorf("engine: wait: %w", ctx.Err())
		}
	}
}

func (e *fakeEngine) Changed(gid string) (<-chan store.Record, func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changed[gid] == nil {
		e.changed[gid] = make(chan store.Record)
	}
	e.subs++
	return e.changed[gid], func() { e.mu.Lock(); e.subs--; e.mu.Unlock() }
}

// host is a coordinator's API over a real gRPC connection.
type host struct {
	*fakeEngine
	tx      amendsv1.TransactionServiceClient
	admin   amendsv1.AdminServiceClient
	ops     amendsv1.OperatorServiceClient
	cluster amendsv1.ClusterServiceClient
	log     *strings.Builder
}

// offers is what the participants of these tests perform.
func offers(_, action string) (service, known bool) {
	service = strings.HasPrefix(action, "accounts.")
	return service, service && (action == "accounts.debit" || action == "accounts.credit")
}

func newHost(t *testing.T, cfg api.Config) *host {
	t.Helper()
	st := memstore.New(&memstore.Config{Shards: 1})
	leases, err := st.Acquire(t.Context(), "test", time.Hour, 1)
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	h := &host{log: &strings.Builder{}, fakeEngine: &fakeEngine{
		st: st, lease: leases[0], changed: map[string]chan store.Record{}, now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	}}
	cfg.Logger = slog.New(slog.NewTextHandler(h.log, nil))
	srv, err := api.New(h.fakeEngine, st, offers, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, srv)
	h.tx, h.admin = amendsv1.NewTransactionServiceClient(conn), amendsv1.NewAdminServiceClient(conn)
	h.ops, h.cluster = amendsv1.NewOperatorServiceClient(conn), amendsv1.NewClusterServiceClient(conn)
	return h
}

func dial(t *testing.T, srv *api.Server) *grpc.ClientConn {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(srv.MaxMessageSize()))
	srv.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// wantErr checks what a client makes of an RPC's error.
func wantErr(t *testing.T, err error, want error, texts ...string) *amendsv1.Error {
	t.Helper()
	err = amendsv1.FromError(err)
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
	var own *amendsv1.Error
	if !errors.As(err, &own) {
		return &amendsv1.Error{}
	}
	return own
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func transfer(gid string) *amendsv1.StartSagaRequest {
	return &amendsv1.StartSagaRequest{Gid: gid, Name: "transfer", Steps: []*amendsv1.SagaStep{
		{Name: "debit", Action: "accounts.debit", Payload: []byte(`{"cents":500}`)},
		{Name: "credit", Action: "accounts.credit", Payload: []byte(`{"cents":500}`), After: []string{"debit"}},
	}}
}

func (h *host) start(t *testing.T, req *amendsv1.StartSagaRequest) *amendsv1.Transaction {
	t.Helper()
	resp, err := h.tx.StartSaga(t.Context(), req)
	noErr(t, err)
	return resp.GetTransaction()
}

func (h *host) moveTo(t *testing.T, gid string, to txn.State) {
	t.Helper()
	_, err := h.move(t.Context(), gid, to, "")
	noErr(t, err)
}
