package coordinator_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

// clusterPatience bounds every wait for what should happen soon.
const clusterPatience = 60 * time.Second

// member is one of a cluster, and the connection that the test has to it.
type member struct {
	*coordinator.Coordinator
	addr string
	conn *grpc.ClientConn
	stop func() error // ends it as SIGTERM does, once
}

// members are a cluster of coordinators on one store in memory. With a token,
// everybody is asked who they are.
type members struct {
	all   []*member
	token string
}

func newMembers(t *testing.T, n int, authenticated bool) *members {
	t.Helper()
	ms, st := &members{}, memstore.New(nil)
	cfg := coordinator.Config{LeaseTTL: 2 * time.Second, Logger: quiet}
	if authenticated {
		ms.token = auth.NewToken()
		file := filepath.Join(t.TempDir(), "auth.json")
		keep(t, file, []byte(`{"tokens": [{"subject": "robot", "grants": ["service", "operator", "break-glass"], "services": ["shelf"],
			"sha256": "`+auth.HashToken(ms.token)+`"}]}`))
		cfg.Auth = must(auth.New(must(auth.OpenFile(file, quiet))(t), &auth.Config{Logger: quiet}))(t)
	}
	for i := range n {
		cfg.Name, cfg.Version = fmt.Sprintf("m%d", i), "test"
		ms.all = append(ms.all, ms.start(t, st, cfg))
	}
	ms.settle(t)
	return ms
}

func (ms *members) start(t *testing.T, st store.Store, cfg coordinator.Config) *member {
	t.Helper()
	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	m := &member{addr: lis.Addr().String()}
	cfg.Address = m.addr
	m.Coordinator = must(coordinator.New(t.Context(), st, &cfg))(t)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error { return m.Serve(ctx, lis) })
	m.stop = func() error {
		cancel()
		return g.Wait()
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if ms.token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(sdk.BearerToken(ms.token, true)))
	}
	m.conn = must(grpc.NewClient(m.addr, opts...))(t)
	t.Cleanup(func() {
		if err := errors.Join(m.stop(), m.conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// settle waits until the shards are spread evenly.
func (ms *members) settle(t *testing.T) {
	t.Helper()
	eventually(t, "the shards are spread", func() bool {
		resp, err := amendsv1.NewClusterServiceClient(ms.all[0].conn).GetCluster(t.Context(), &amendsv1.GetClusterRequest{})
		if err != nil || len(resp.GetMembers()) != len(ms.all) {
			return false
		}
		for _, m := range resp.GetMembers() {
			if m.GetShards() < resp.GetShards()/int32(len(ms.all)) || m.GetAddress() == "" || m.GetVersion() != "test" || m.GetStartTime() == nil {
				return false
			}
		}
		return true
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for late := time.Now().Add(clusterPatience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not within %v: %s", clusterPatience, what)
		}
	}
}

// attend has the service shelf attend every member; hold.Hold waits while gate is
// closed, if there is one.
func (ms *members) attend(t *testing.T) {
	t.Helper()
	db := must(sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "shelf.db"))))(t)
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	for _, m := range ms.all {
		p := sdk.NewParticipant("shelf", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
		sdk.HandleSaga(p, put,
			func(_ context.Context, _ *sql.Tx, s string) (string, error) { return s, nil },
			func(context.Context, *sql.Tx, string, string) error { return nil })
		sdk.HandleTCC(p, hold,
			func(_ context.Context, _ *sql.Tx, s string) (string, error) { return s, nil },
			func(context.Context, *sql.Tx, string, string) error { return nil },
			func(context.Context, *sql.Tx, string, string) error { return nil })
		g.Go(func() error { return p.Run(ctx, m.conn) })
	}
	t.Cleanup(func() {
		stop()
		if err := errors.Join(g.Wait(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, m := range ms.all {
		eventually(t, "shelf is connected to "+m.addr, func() bool {
			resp, err := amendsv1.NewClusterServiceClient(m.conn).ListParticipants(t.Context(), &amendsv1.ListParticipantsRequest{})
			return err == nil && len(resp.GetParticipants()) == 1
		})
	}
}

// TestEveryMemberServes: each request about a transaction is served by each
// member, whoever owns its shard, and the trail names who asked.
func TestEveryMemberServes(t *testing.T) {
	for _, authenticated := range []bool{false, true} {
		t.Run(fmt.Sprintf("authenticated is %t", authenticated), func(t *testing.T) {
			ms := newMembers(t, 3, authenticated)
			ms.attend(t)
			ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
			defer cancel()
			for i, m := range ms.all {
				for j := range 6 { // so many that all but one of a thousand times some shard is elsewhere
					everyRequest(ctx, t, m, fmt.Sprintf("%d-%d", i, j), ms.token != "")
				}
			}
			var sent uint64
			for _, m := range ms.all {
				sent += m.Stats().Forwarded.Sent
			}
			if sent == 0 {
				t.Error("nothing was forwarded")
			}
		})
	}
}

// everyRequest sends each kind of request that belongs to somebody.
func everyRequest(ctx context.Context, t *testing.T, m *member, id string, authenticated bool) {
	t.Helper()
	tx, ops := amendsv1.NewTransactionServiceClient(m.conn), amendsv1.NewOperatorServiceClient(m.conn)
	admin := amendsv1.NewAdminServiceClient(m.conn)
	client := sdk.NewClient(m.conn, &sdk.ClientConfig{Logger: quiet})
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s of %s at %s: %v", what, id, m.addr, err)
		}
	}
	ok("a saga", startOne(ctx, client, putOne, id, &sdk.StartConfig{GID: "saga-" + id}))
	ok("a saga without a gid", startOne(ctx, client, putOne, id, nil))
	ok("a TCC transaction", sdk.RunTCC(ctx, client, "hold", func(ctx context.Context, tcc *sdk.TCC) error {
		_, err := sdk.Try(ctx, tcc, hold, id)
		return err
	}, nil))
	watch, err := admin.WatchTransaction(ctx, &amendsv1.WatchTransactionRequest{Gid: "saga-" + id})
	ok("a watch", err)
	events := 0
	for ; err == nil; events++ {
		_, err = watch.Recv()
	}
	if events < 3 {
		t.Errorf("a watch of saga-%s saw %d events, and then %v", id, events, err)
	}
	gid := "tcc-" + id
	_, err = tx.BeginTcc(ctx, &amendsv1.BeginTccRequest{Gid: gid, Name: "x", Timeout: durationpb.New(time.Hour)})
	ok("a begin", err)
	_, err = ops.Pause(ctx, &amendsv1.PauseRequest{Gid: gid, Reason: "because"})
	ok("a pause", err)
	_, err = ops.Pause(ctx, &amendsv1.PauseRequest{Gid: gid, Reason: "because"})
	if !errors.Is(amendsv1.FromError(err), amendsv1.ErrIllegalVerb) {
		t.Errorf("a second pause of %s: %v", gid, err)
	}
	_, err = ops.Resume(ctx, &amendsv1.ResumeRequest{Gid: gid, Reason: "because"})
	ok("a resume", err)
	waited, err := tx.WaitTransaction(ctx, &amendsv1.WaitTransactionRequest{Gid: gid, MaxWait: durationpb.New(time.Millisecond)})
	ok("a wait", err)
	if waited.GetTransaction().GetState() != amendsv1.State_STATE_RUNNING {
		t.Errorf("%v", waited)
	}
	_, err = tx.AbortTransaction(ctx, &amendsv1.AbortTransactionRequest{Gid: gid, Reason: "enough"})
	ok("an abort", err)
	resp, err := admin.ListEvents(ctx, &amendsv1.ListEventsRequest{Gid: gid})
	ok("events", err)
	acts := 0
	for _, e := range resp.GetEvents() {
		if e.GetType() != "pause" && e.GetType() != "resume" {
			continue
		}
		acts++
		actor := e.GetDetail().GetFields()["actor"].GetStringValue()
		if authenticated && actor != "robot" || !authenticated && !strings.HasPrefix(actor, "127.0.0.1:") {
			t.Errorf("the actor of %q in the trail of %s is %q", e.GetType(), gid, actor)
		}
	}
	if acts != 2 {
		t.Errorf("%d acts in the trail of %s, want a pause and a resume", acts, gid)
	}
	_, err = tx.WaitTransaction(ctx, &amendsv1.WaitTransactionRequest{Gid: gid})
	ok("the end", err)
}
