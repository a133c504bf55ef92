package service

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// Config says where a service lives and whom it talks to.
type Config struct {
	Dir         string   // its database is DIR/NAME.db, unless MySQL says otherwise
	MySQL       string   // go-sql-driver's DSN of its database; empty: SQLite
	Prefix      string   // of its topics, its consumer group and its keys in Redis
	Coordinator string   // host:port
	Kafka       []string // host:port
	Redis       string   // host:port
	Logger      *slog.Logger
}

// Run runs a service until ctx ends. Once it can be used it says so in one line
// on w.
func Run(ctx context.Context, name string, cfg Config, w io.Writer) error {
	services := map[string]struct {
		tables []string
		run    func(context.Context, *host) error
	}{
		Order:        {[]string{ordersTable}, runOrder},
		Inventory:    {[]string{stockTable}, runInventory},
		Payment:      {[]string{accountTable, captureTable}, runPayment},
		Notification: {[]string{mailTable}, runNotification},
	}
	s, known := services[name]
	if !known {
		return fmt.Errorf("service %q is unknown (known: %s, %s, %s, %s)", name, Order, Inventory, Payment, Notification)
	}
	k := kindOf(cfg)
	db, err := k.open(ctx, name, cfg, s.tables)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer db.Close() // what was committed is durable
	h := &host{name: name, cfg: cfg, kind: k, db: db, out: w, box: outbox.New(k.dialect, &outbox.Config{Logger: cfg.Logger})}
	if err := s.run(ctx, h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// host is what every service has.
type host struct {
	name string
	cfg  Config
	kind *kind
	db   *sql.DB
	box  *outbox.Outbox
	out  io.Writer
}

// connect makes the connection to the coordinator. It looks often whether a
// coordinator that went away is back.
func (h *host) connect(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	often := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	return grpc.NewClient(h.cfg.Coordinator, append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: often, MinConnectTimeout: time.Second}))...)
}

func (h *host) client(conn *grpc.ClientConn) *sdk.Client {
	return sdk.NewClient(conn, &sdk.ClientConfig{Logger: h.cfg.Logger})
}

// participant performs calls, few at once: it shares a small machine.
func (h *host) participant() *sdk.Participant {
	return sdk.NewParticipant(h.name, h.db, h.kind.dialect, &sdk.ParticipantConfig{
		Concurrency: 8, DrainTimeout: 5 * time.Second, SkipMigrate: true, Outbox: h.box, Logger: h.cfg.Logger,
	})
}

// attend runs a participant, for services that do nothing else.
func (h *host) attend(ctx context.Context, p *sdk.Participant, opts ...grpc.DialOption) error {
	conn, err := h.connect(opts...)
	if err != nil {
		return err
	}
	defer conn.Close() // drained by Run
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(ctx, conn) })
	g.Go(func() error { return h.ready("") })
	return g.Wait()
}

// ready tells whoever started the service.
func (h *host) ready(addr string) error {
	line := "shop: " + h.name + " ready"
	if addr != "" {
		line += " on " + addr
	}
	_, err := fmt.Fprintln(h.out, line)
	return err
}

// exec runs a statement that must change exactly one row.
func exec(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n != 1 {
		return fmt.Errorf("%d rows changed, want 1: %s", n, query)
	}
	return err
}
