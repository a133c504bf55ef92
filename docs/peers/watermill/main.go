// Command watermill runs one workload on two transactional outboxes, that of
// Amends and Watermill's SQL publisher with its forwarder, each as its own
// documentation sets it up, and says what came out of the log:
//
//	eval "$(bin/services env)"
//	cd docs/peers/watermill && go run . --time 10s
//
// It is a module of its own: nobody who uses Amends gets Watermill by it.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"
)

// system is a transactional outbox.
type system interface {
	name() string
	// prepare makes what the system needs in the database.
	prepare(ctx context.Context, db *sql.DB) error
	// write writes a message in tx.
	write(ctx context.Context, tx *sql.Tx, m message) error
	// run brings messages from the database to Kafka until ctx ends.
	run(ctx context.Context, db *sql.DB) error
}

// message is the n-th of its key.
type message struct {
	topic, id, key string
	n              int
}

type options struct {
	dsn     string
	brokers []string
	writers int
	time    time.Duration
	quiet   time.Duration
	restart bool
}

func main() {
	o := options{dsn: os.Getenv("AMENDS_MYSQL_DSN"), brokers: strings.Split(os.Getenv("AMENDS_KAFKA_BROKERS"), ",")}
	flag.IntVar(&o.writers, "writers", 24, "concurrent writers")
	flag.DurationVar(&o.time, "time", 10*time.Second, "how long they write")
	flag.DurationVar(&o.quiet, "quiet", 15*time.Second, "the log is complete when it has not grown for so long")
	flag.BoolVar(&o.restart, "restart", false, "restart what publishes, half-way")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.compare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "watermill:", err)
		os.Exit(1)
	}
}

func (o *options) compare(ctx context.Context) error {
	if o.dsn == "" || o.brokers[0] == "" {
		return errors.New("AMENDS_MYSQL_DSN and AMENDS_KAFKA_BROKERS are not set: run make services and eval \"$(bin/services env)\"")
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "outbox\tcommitted\tin the log\tlost\tout of order\tdoubled\tfailed writes\tlast one after\t")
	for _, s := range []system{&amends{brokers: o.brokers}, &watermillSQL{brokers: o.brokers}} {
		r, err := o.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f s\t\n", s.name(),
			r.committed, r.logged, r.lost, r.disordered, r.doubled, r.failed, r.last.Seconds())
	}
	return table.Flush()
}

// measure runs the workload on one system, in a database and a topic of its own.
func (o *options) measure(ctx context.Context, s system) (result, error) {
	name := fmt.Sprintf("amends_test_peer_%d", time.Now().UnixNano())
	db, drop, err := database(ctx, o.dsn, name)
	if err != nil {
		return result{}, err
	}
	defer drop()
	log, err := openLog(ctx, o.brokers, name)
	if err != nil {
		return result{}, err
	}
	defer log.close()
	if err := errors.Join(s.prepare(ctx, db), prepare(ctx, db)); err != nil {
		return result{}, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return o.publish(running, s, db) })
	began := time.Now()
	w := workload{system: s, db: db, topic: name}
	g.Go(func() error {
		defer stop()
		if err := w.run(running, o.writers, o.time); err != nil {
			return err
		}
		return log.settle(running, o.quiet)
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return result{}, err
	}
	return w.judge(ctx, log, began)
}

// publish runs what publishes; with --restart it is ended and started again
// half-way, as a deployment does.
func (o *options) publish(ctx context.Context, s system, db *sql.DB) error {
	if o.restart {
		first, stop := context.WithTimeout(ctx, o.time/2)
		defer stop()
		if err := s.run(first, db); err != nil && first.Err() == nil {
			return err
		}
	}
	if err := s.run(ctx, db); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// database makes one, and returns what drops it.
func database(ctx context.Context, dsn, name string) (*sql.DB, func(), error) {
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, nil, err
	}
	conf.ParseTime = true // Watermill needs it
	server, err := sql.Open("mysql", conf.FormatDSN())
	if err != nil {
		return nil, nil, err
	}
	if _, err := server.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, nil, errors.Join(err, server.Close())
	}
	conf.DBName = name
	db, err := sql.Open("mysql", conf.FormatDSN())
	if err != nil {
		return nil, nil, errors.Join(err, server.Close())
	}
	db.SetMaxOpenConns(64)
	db.SetMaxIdleConns(64)
	return db, func() {
		_, err := server.ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+name)
		if err := errors.Join(err, db.Close(), server.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "watermill: drop the database:", err)
		}
	}, nil
}
