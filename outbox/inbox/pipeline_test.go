package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// pipeline is the whole way: rows, outbox, relay, Kafka, consumer, rows.
type pipeline struct {
	*bench
	box   *outbox.Outbox
	topic string
}

func newPipeline(t *testing.T, b *bench, partitions int) *pipeline {
	t.Helper()
	_, err := b.db.ExecContext(t.Context(), `CREATE TABLE counters (k VARCHAR(32) PRIMARY KEY, seq BIGINT NOT NULL)`)
	if err != nil {
		t.Fatal(err)
	}
	if b.d == outbox.MySQL {
		b.db.SetMaxOpenConns(64) // far below what the server allows, and far below the number of writers
	}
	return &pipeline{b, outbox.New(b.d, &outbox.Config{Logger: silent}), b.topic(t, partitions)}
}

// counters makes the rows whose locks stand for keys, in few statements.
func (p *pipeline) counters(t *testing.T, keys ...string) {
	t.Helper()
	err := outbox.InTx(t.Context(), p.db, nil, func(tx *sql.Tx) error {
		for some := range slices.Chunk(keys, 500) {
			values := strings.TrimSuffix(strings.Repeat("(?, 0), ", len(some)), ", ")
			args := make([]any, len(some))
			for i, k := range some {
				args[i] = k
			}
			if _, err := tx.ExecContext(t.Context(), "INSERT INTO counters (k, seq) VALUES "+values, args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// write commits the next message of a key: its number is that of the commit, as
// the key's row stays locked until then.
func (p *pipeline) write(ctx context.Context, key string) error {
	return p.box.Tx(ctx, p.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE counters SET seq = seq + 1 WHERE k = ?`, key); err != nil {
			return err
		}
		var seq int
		if err := tx.QueryRowContext(ctx, `SELECT seq FROM counters WHERE k = ?`, key).Scan(&seq); err != nil {
			return err
		}
		return p.box.Write(ctx, tx, outbox.Message{Topic: p.topic, Key: key, Body: strconv.AppendInt(nil, int64(seq-1), 10)})
	})
}

// relay runs one until it is stopped or the test ends.
func (p *pipeline) relay(t *testing.T, cfg outbox.RelayConfig) (stop func()) {
	t.Helper()
	cfg.Logger = silent
	r := outbox.NewRelay(p.box, p.db, p.pub, &cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// checkLog wants all committed messages in the log, each key's in the order of
// their commits. Those that came again are counted.
func (p *pipeline) checkLog(t *testing.T) (total, again int) {
	t.Helper()
	next := map[string]int{}
	p.client(t, func(c *kafka.Client) error {
		meta, err := c.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{p.topic}})
		if err != nil {
			return err
		}
		con := &Consumer{client: c}
		for _, part := range meta.Topics[0].Partitions {
			end, err := c.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{
				Topics: map[string][]kafka.OffsetRequest{p.topic: {kafka.LastOffsetOf(part.ID)}},
			})
			if err != nil {
				return err
			}
			for tr := newTracker(p.topic, part.ID, 0); tr.fetched() < end.Topics[p.topic][0].LastOffset; {
				records, after, err := con.fetchOnce(t.Context(), tr)
				if err != nil {
					return err
				}
				tr.start(after)
				for _, r := range records {
					seq, err := strconv.Atoi(string(r.message.Body))
					switch key := r.message.Key; {
					case err != nil || seq > next[key]:
						return fmt.Errorf("%s: %q came where %d should", key, r.message.Body, next[key])
					case seq < next[key]:
						again++
					default:
						next[key]++
						total++
					}
				}
			}
		}
		return nil
	})
	rows, err := p.db.QueryContext(t.Context(), `SELECT k, seq FROM counters`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		var seq int
		if err := rows.Scan(&key, &seq); err != nil {
			t.Fatal(err)
		}
		if next[key] != seq {
			t.Errorf("%s: %d in the log, %d committed", key, next[key], seq)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return total, again
}

// TestThousandWriters has 1,000 writers of one hot key and of 10,000 others; a short run has 300.
func TestThousandWriters(t *testing.T) {
	const hot, keys = 1, 10_000
	writers, cold := scaled(300, 1000), scaled(1, 4)
	b := servers(t)
	b.connect(t, servicestest.Kafka(t)...)
	p := newPipeline(t, b, 6)
	names := []string{"hot"}
	for k := range keys {
		names = append(names, fmt.Sprint("k", k))
	}
	p.counters(t, names...)
	c := p.consumer(t, ConsumerConfig{Concurrency: 16}, insertHandled, p.topic)
	start(t, c)
	stop := p.relay(t, outbox.RelayConfig{Lease: time.Minute})
	began := time.Now()
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range hot + cold {
				key := "hot"
				if i >= hot {
					key = names[1+rnd.IntN(keys)]
				}
				if err := p.write(t.Context(), key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	wrote := time.Since(began)
	n := writers * (hot + cold)
	eventually(t, "all handled", func() bool { return c.Stats().Handled == uint64(n) })
	handled := time.Since(began)
	stop()
	if total, again := p.checkLog(t); total != n || again != 0 {
		t.Errorf("%d messages in the log, %d came again; want %d and none", total, again, n)
	}
	p.check(t, n)
	t.Logf("%d messages of %d writers: written in %v, handled after %v", n, writers, wrote, handled)
}

// TestRedisUnderLoad flushes, stops, pauses and fills Redis while relays come
// and go, of which some die between publishing and deleting: nothing is lost,
// and nothing handled twice.
func TestRedisUnderLoad(t *testing.T) {
	t.Parallel()
	b := servers(t)
	b.connect(t, servicestest.Kafka(t)...)
	p := newPipeline(t, b, 4)
	names := make([]string, 20)
	for k := range names {
		names[k] = fmt.Sprint("k", k)
	}
	p.counters(t, names...)
	r := servicestest.StartRedis(t, "--maxmemory", "2mb", "--maxmemory-policy", "allkeys-random")
	client := redis.NewClient(&redis.Options{Addr: r.Addr, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	keys, err := outbox.NewRedisKeys(client, &outbox.RedisConfig{Pause: 20 * time.Millisecond, Timeout: 50 * time.Millisecond, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	c := p.consumer(t, ConsumerConfig{Done: keys, Concurrency: 8}, insertHandled, p.topic)
	start(t, c)
	ctx, end := context.WithCancel(t.Context())
	var g errgroup.Group
	written := make([]int, 16)
	for w := range written {
		g.Go(func() error {
			for rnd := rand.New(rand.NewPCG(uint64(w), 2)); ctx.Err() == nil; written[w]++ {
				if err := p.write(t.Context(), names[rnd.IntN(len(names))]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error { p.mortalRelays(ctx, keys); return nil })
	for range scaled(1, 2) {
		for name, harm := range map[string]func(){
			"flush": func() { client.FlushAll(t.Context()) },
			"stop":  func() { r.Stop(); r.Start() },
			"kill":  func() { r.Kill(); r.Start() },
			"pause": func() { r.Pause(); eventually(t, "more", p.more(c)); r.Resume() },
			"fill": func() {
				_, err := client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
					for i := range 20_000 {
						p.Set(t.Context(), fmt.Sprint("others:", i), "some value", 0)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			},
		} {
			eventually(t, "progress before "+name, p.more(c))
			harm()
		}
	}
	if info := client.Info(t.Context(), "stats").Val(); strings.Contains(info, "evicted_keys:0\r") {
		t.Log("the last server evicted nothing") // it may have been started anew since
	}
	end()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, w := range written {
		n += w
	}
	p.relay(t, outbox.RelayConfig{Lease: 2 * time.Second, Keys: keys})
	eventually(t, "all handled", func() bool {
		depth, err := outbox.Depth(t.Context(), p.db, p.d)
		return err == nil && depth.Rows == 0 && c.Stats().Handled == uint64(n)
	})
	_, again := p.checkLog(t)
	eventually(t, "all seen", func() bool { return c.Stats().Duplicates == uint64(again) })
	p.check(t, n)
	t.Logf("%d messages handled once; %d came again because of dead relays", n, again)
}

// more tells whether some messages were handled since it was made.
func (p *pipeline) more(c *Consumer) func() bool {
	before := c.Stats().Handled
	return func() bool { return c.Stats().Handled >= before+50 }
}

// errDied is what a relay that died never gets to hear.
var errDied = errors.New("died")

// mortalRelays runs relays one after the other. Each dies, after some batches,
// with one in the log and not yet deleted.
func (p *pipeline) mortalRelays(ctx context.Context, keys outbox.Keys) {
	for ctx.Err() == nil {
		life, die := context.WithCancel(ctx)
		batches := 0
		var mu sync.Mutex
		r := outbox.NewRelay(p.box, p.db, publishers(func(pctx context.Context, msgs []outbox.Message) []error {
			errs := p.pub.Publish(pctx, msgs)
			mu.Lock()
			defer mu.Unlock()
			if batches++; batches < 30 {
				return errs
			}
			die()
			errs = make([]error, len(msgs))
			for i := range errs {
				errs[i] = errDied
			}
			return errs
		}), &outbox.RelayConfig{Lease: 2 * time.Second, Batch: 100, Keys: keys, Logger: silent})
		_ = r.Run(life) // only a wrong configuration is an error, and the test would not end
		die()
	}
}

type publishers func(ctx context.Context, msgs []outbox.Message) []error

func (f publishers) Publish(ctx context.Context, msgs []outbox.Message) []error { return f(ctx, msgs) }
