package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// rig is what one workload runs on. It is new for each, so that none finds what
// another left behind.
type rig struct {
	cfg   *Config
	dir   string
	mysql *sql.DB // the server, for its counters; nil: none
	dsn   string  // of a database of our own on it
	undo  []func() error

	addrs   []string      // of the coordinators
	started time.Time     // when they were
	ready   time.Duration // until a transaction had ended
}

func newRig(ctx context.Context, cfg *Config) (r *rig, err error) {
	r = &rig{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dir, err = os.MkdirTemp(cfg.Dir, "amends-bench-"); err != nil {
		return r, err
	}
	r.undo = append(r.undo, func() error { return os.RemoveAll(r.dir) })
	if cfg.Store == "mysql" {
		return r, r.newDatabase(ctx)
	}
	return r, nil
}

// close undoes all, the last first.
func (r *rig) close() error {
	var errs []error
	for i := len(r.undo) - 1; i >= 0; i-- {
		errs = append(errs, r.undo[i]())
	}
	r.undo = nil
	return errors.Join(errs...)
}

// newDatabase makes a database on the server, so that nothing of the user's is
// touched.
func (r *rig) newDatabase(ctx context.Context) error {
	conf, err := sqlstore.ParseDSN(r.cfg.MySQL)
	if err != nil {
		return err
	}
	conf.DBName = ""
	if r.mysql, err = sql.Open("mysql", conf.FormatDSN()); err != nil {
		return err
	}
	r.undo = append(r.undo, r.mysql.Close)
	// The name is our own and cannot be bound.
	name := "amends_bench_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if _, err := r.mysql.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("make a database to measure in: %w", err)
	}
	r.undo = append(r.undo, func() error {
		_, err := r.mysql.ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+name)
		return err
	})
	conf.DBName = name
	r.dsn = conf.FormatDSN()
	return nil
}

// database opens what participants and outboxes write to: the same server as the
// coordinator's, or a file.
func (r *rig) database(ctx context.Context) (*sql.DB, *outbox.Dialect, error) {
	driver, dsn, dialect := "sqlite", outbox.SQLiteDSN(filepath.Join(r.dir, "service.db")), outbox.SQLite
	if r.mysql != nil {
		conf, err := mysql.ParseDSN(r.dsn)
		if err != nil {
			return nil, nil, err
		}
		conf.InterpolateParams = true
		driver, dsn, dialect = "mysql", conf.FormatDSN(), outbox.MySQL
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, nil, err
	}
	r.undo = append(r.undo, db.Close)
	db.SetMaxOpenConns(32)
	db.SetMaxIdleConns(32)
	return db, dialect, outbox.Migrate(ctx, db, dialect)
}

func (r *rig) openStore(ctx context.Context) (store.Store, error) {
	cfg := &sqlstore.Config{Logger: r.cfg.Logger}
	switch r.cfg.Store {
	case "mysql":
		return sqlstore.OpenMySQL(ctx, r.dsn, cfg)
	case "sqlite":
		return sqlstore.OpenSQLite(ctx, filepath.Join(r.dir, "coordinator"), cfg)
	}
	return memstore.New(nil), nil
}

// run runs long-lived things until the rig is closed.
func (r *rig) run(ctx context.Context, things ...func(context.Context) error) {
	g, stop := until(ctx, things...)
	r.undo = append(r.undo, func() error {
		stop()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

func (r *rig) dial(addr string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		r.undo = append(r.undo, conn.Close)
	}
	return conn, err
}

// broker returns brokers to publish to: the user's, or one in this process, whose
// figures are not a real one's.
func (r *rig) broker() ([]string, error) {
	if len(r.cfg.Kafka) > 0 {
		return r.cfg.Kafka, nil
	}
	k, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Dir: filepath.Join(r.dir, "kafka"), Logger: r.cfg.Logger})
	if err != nil {
		return nil, err
	}
	r.undo = append(r.undo, func() error { k.Close(); return nil })
	return []string{k.Addr()}, nil
}

// setup tells results of one workload apart.
func (r *rig) setup() string {
	s := fmt.Sprintf("%s, %d clients", r.cfg.Store, r.cfg.Clients) + r.cfg.Scale.String()
	if r.cfg.Rate > 0 {
		s += fmt.Sprintf(", open loop at %v/s", r.cfg.Rate)
	}
	return s
}

// durability are the settings of a MySQL server without which its figures say
// nothing.
const durability = `SELECT VERSION(), @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@log_bin, @@innodb_buffer_pool_size >> 20`

// settings adds what the figures rest on.
func (r *rig) settings(ctx context.Context, to map[string]string) error {
	switch {
	case r.mysql != nil:
		var version, flush, sync, binlog, pool string
		if err := r.mysql.QueryRowContext(ctx, durability).Scan(&version, &flush, &sync, &binlog, &pool); err != nil {
			return err
		}
		to["mysql"] = fmt.Sprintf("%s, innodb_flush_log_at_trx_commit=%s, log_bin=%s, sync_binlog=%s, buffer pool %s MiB",
			version, flush, binlog, sync, pool)
	case r.cfg.Store == "sqlite":
		to["sqlite"] = "WAL, synchronous=FULL"
	default:
		to["memory"] = "nothing is durable"
	}
	to["kafka"] = "in this process, for development"
	if len(r.cfg.Kafka) > 0 {
		to["kafka"] = "acks=all, as its topics are replicated"
	}
	return nil
}
