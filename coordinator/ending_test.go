package coordinator_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// TestRunEndsBeforeServe: Run waits for no Serve that is to go on, which sends
// callers to another coordinator.
func TestRunEndsBeforeServe(t *testing.T) {
	ms, st := &members{}, memstore.New(nil)
	cfg := coordinator.Config{Name: "stays", Version: "test", LeaseTTL: 2 * time.Second, Logger: quiet}
	ms.all = append(ms.all, ms.start(t, st, cfg))

	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	cfg.Name, cfg.Address, cfg.DrainTimeout = "goes", lis.Addr().String(), time.Hour // which is never waited for
	leaving := must(coordinator.New(t.Context(), st, &cfg))(t)
	run, endRun := context.WithCancel(context.Background())
	serve, endServe := context.WithCancel(context.Background())
	var runs, serves errgroup.Group
	ran := make(chan struct{})
	runs.Go(func() error {
		defer close(ran)
		return leaving.Run(run)
	})
	serves.Go(func() error { return leaving.Serve(serve, lis) })
	conn := must(grpc.NewClient(cfg.Address, grpc.WithTransportCredentials(insecure.NewCredentials())))(t)
	defer func() { _ = conn.Close() }()
	ms.all = append(ms.all, &member{Coordinator: leaving, addr: lis.Addr().String(), conn: conn})
	ms.attend(t)
	ms.settle(t)

	endRun()
	select {
	case <-ran:
	case <-time.After(clusterPatience):
		t.Error("Run waits for Serve")
	}
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	_, err := amendsv1.NewTransactionServiceClient(conn).BeginTcc(ctx, &amendsv1.BeginTccRequest{Name: "x"})
	if !errors.Is(amendsv1.FromError(err), amendsv1.ErrNotOwner) {
		t.Errorf("a coordinator whose Run has ended: %v, want ErrNotOwner", err)
	}
	endServe()
	if err := errors.Join(runs.Wait(), serves.Wait()); err != nil {
		t.Error(err)
	}
}
