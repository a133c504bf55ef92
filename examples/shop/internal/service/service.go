package service

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	_ "modernc.org/sqlite" // the services' databases

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// Config says where a service lives and whom it talks to.
type Config struct {
	Dir         string // its database is DIR/NAME.db
	Coordinator string // host:port
	Kafka       string // host:port
	Redis       string // host:port
	Logger      *slog.Logger
}

// Run runs a service until ctx ends. Once it can be used it says so in one line
// on w.
func Run(ctx context.Context, name string, cfg Config, w io.Writer) error {
	services := map[string]struct {
		schema string
		run    func(context.Context, *host) error
	}{
		Order:        {orderSchema, runOrder},
		Inventory:    {inventorySchema, runInventory},
		Payment:      {paymentSchema, runPayment},
		Notification: {notificationSchema, runNotification},
	}
	s, known := services[name]
	if !known {
		return fmt.Errorf("service %q is unknown (known: %s, %s, %s, %s)", name, Order, Inventory, Payment, Notification)
	}
	db, err := openDB(ctx, filepath.Join(cfg.Dir, name+".db"), s.schema)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer db.Close() // what was committed is durable
	if name != Order {
		db.SetMaxOpenConns(1) // SQLite has one writer: handlers wait for it here, in line. The relay needs more.
	}
	h := &host{name: name, cfg: cfg, db: db, out: w, box: outbox.New(outbox.SQLite, &outbox.Config{Logger: cfg.Logger})}
	if err := s.run(ctx, h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// host is what every service has.
type host struct {
	name string
	cfg  Config
	db   *sql.DB
	box  *outbox.Outbox
	out  io.Writer
}

func openDB(ctx context.Context, path, schema string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(path))
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := outbox.Migrate(ctx, db, outbox.SQLite); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
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

// participant performs calls. Few at once: SQLite has one writer.
func (h *host) participant() *sdk.Participant {
	return sdk.NewParticipant(h.name, h.db, outbox.SQLite, &sdk.ParticipantConfig{
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
