package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// The limits of a machine, per second.
const (
	limitFsync    = "fsync"            // 4 KiB appended to a file and made durable
	limitInsert   = "insert"           // rows of one column, each in a transaction of its own
	limitInserts  = "insert_multi_row" // rows, a hundred to a statement
	limitUnary    = "grpc_unary"       // requests that a coordinator answers from memory
	limitProduce  = "produce"          // messages, by the publisher alone
	rowsPerInsert = 100

	createPlain = `CREATE TABLE plain (id VARCHAR(64) PRIMARY KEY, body BLOB NOT NULL)`
	insertPlain = `INSERT INTO plain (id, body) VALUES `
)

// limits measures each for the time that a workload is measured.
func (r *rig) limits(ctx context.Context) (map[string]float64, error) {
	found := map[string]float64{}
	for name, measure := range map[string]func(context.Context) (float64, error){
		limitFsync: r.fsyncs, limitInsert: r.inserts(1), limitInserts: r.inserts(rowsPerInsert),
		limitUnary: r.unary, limitProduce: r.produce,
	} {
		each, err := measure(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found[name] = each
	}
	return found, nil
}

// fsyncs appends and syncs, one after the other.
func (r *rig) fsyncs(ctx context.Context) (float64, error) {
	f, err := os.Create(filepath.Join(r.dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close() // was synced
	page := make([]byte, 4096)
	begin, n := time.Now(), 0
	for ; time.Since(begin) < r.cfg.For && ctx.Err() == nil; n++ {
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begin).Seconds(), ctx.Err()
}

// inserts has all clients insert, so many rows to a statement.
func (r *rig) inserts(rows int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		own := &rig{cfg: r.cfg, dir: filepath.Join(r.dir, fmt.Sprint("rows-", rows)), mysql: r.mysql, dsn: r.dsn}
		defer func() { _ = own.close() }() // its files go with ours
		if err := os.Mkdir(own.dir, 0o700); err != nil {
			return 0, err
		}
		db, _, err := own.database(ctx)
		if err != nil {
			return 0, err
		}
		_, _ = db.ExecContext(ctx, `DROP TABLE plain`) // of the limit before
		if _, err := db.ExecContext(ctx, createPlain); err != nil {
			return 0, err
		}
		statement := insertPlain + strings.TrimSuffix(strings.Repeat("(?, ?), ", rows), ", ") //nolint:gosec // no values in it
		res, err := own.loop(ctx, func(ctx context.Context, _ int) error {
			args := make([]any, 0, 2*rows)
			for range rows {
				args = append(args, uuid.NewString(), make([]byte, 200))
			}
			_, err := db.ExecContext(ctx, statement, args...)
			return err
		})
		return res.PerSecond * float64(rows), err
	}
}

// unary asks a coordinator who is asking, which costs it nothing.
func (r *rig) unary(ctx context.Context) (float64, error) {
	memory := *r.cfg
	memory.Store, memory.Scale = "memory", Scale{}
	own := &rig{cfg: &memory, dir: r.dir}
	defer func() { _ = own.close() }() // nothing of it lasts
	addrs, err := own.coordinators(ctx)
	if err != nil {
		return 0, err
	}
	conn, err := own.dial(addrs[0])
	if err != nil {
		return 0, err
	}
	client := amendsv1.NewClusterServiceClient(conn)
	res, err := own.loop(ctx, func(ctx context.Context, _ int) error {
		_, err := client.WhoAmI(ctx, &amendsv1.WhoAmIRequest{}, grpc.WaitForReady(true))
		return err
	})
	return res.PerSecond, err
}

// produce publishes batches as a relay does, from one goroutine, without a
// database.
func (r *rig) produce(ctx context.Context) (float64, error) {
	s := &shop{rig: r, topic: "amends-bench-" + uuid.NewString()}
	pub, err := s.publisher()
	if err != nil {
		return 0, err
	}
	begin, n := time.Now(), 0
	for time.Since(begin) < r.cfg.For && ctx.Err() == nil {
		msgs := make([]outbox.Message, 0, fillBatch)
		for i := range fillBatch {
			m := s.message(n + i)
			m.ID = uuid.NewString()
			msgs = append(msgs, m)
		}
		for _, err := range pub.Publish(ctx, msgs) {
			if err != nil {
				return 0, err
			}
		}
		n += fillBatch
	}
	return float64(n) / time.Since(begin).Seconds(), ctx.Err()
}
