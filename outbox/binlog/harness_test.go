package binlog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
	"github.com/amends-dev/amends/outbox/outboxtest"
)

// patience bounds every wait. Brokers that were killed take their time, in the long form on real ones.
var patience = map[bool]time.Duration{false: time.Minute, true: 5 * time.Minute}[os.Getenv("AMENDS_LONG") != ""]

const (
	keys    = 8 // shared between the writers
	writers = 24
)

// startServer runs a MariaDB with a binlog.
func startServer(t testing.TB, args ...string) *servicestest.Server {
	t.Helper()
	return servicestest.StartMySQL(t, append([]string{
		"--log-bin=bin", "--binlog-format=ROW", "--server-id=1", "--sync-binlog=1", "--plugin-load-add=ha_blackhole",
	}, args...)...)
}

// harness is one database with an outbox, its writers and its relays.
type harness struct {
	testing.TB
	server *servicestest.Server
	dsn    string
	db     *sql.DB
	box    *outbox.Outbox
	log    *outboxtest.Log
	mode   binlog.Mode
	out    slog.Handler
}

func newHarness(t testing.TB, server *servicestest.Server, mode binlog.Mode) *harness {
	t.Helper()
	h := newHarnessAt(t, servicestest.NewDatabase(t, server.Addr), mode)
	h.server = server
	return h
}

// newHarnessAt makes an outbox in a database that is empty.
func newHarnessAt(t testing.TB, dsn string, mode binlog.Mode) *harness {
	t.Helper()
	h := &harness{TB: t, dsn: dsn, db: open(t, dsn), log: &outboxtest.Log{}, mode: mode, out: slog.DiscardHandler}
	if os.Getenv("BINLOG_TEST_LOG") != "" {
		h.out = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	h.must(outbox.Migrate(t.Context(), h.db, outbox.MySQL))
	h.exec(`CREATE TABLE counters (k INT PRIMARY KEY, seq BIGINT NOT NULL)`)
	for k := range keys {
		h.exec(`INSERT INTO counters VALUES (?, 0)`, k)
	}
	cfg := &outbox.Config{Logger: quiet()}
	if mode == binlog.ModeLog {
		cfg.MaxRows = -1
		h.must(binlog.Convert(t.Context(), h.db, h.config()))
	}
	h.box = outbox.New(outbox.MySQL, cfg)
	return h
}

func open(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(64)
	t.Cleanup(func() { db.Close() })
	return db
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// config is of a source that reads the harness's database.
func (h *harness) config() binlog.Config {
	h.Helper()
	dsn, err := mysql.ParseDSN(h.dsn)
	h.must(err)
	return binlog.Config{Addr: dsn.Addr, User: dsn.User, Password: dsn.Passwd, Database: dsn.DBName, Mode: h.mode,
		Heartbeat: 200 * time.Millisecond, Check: 500 * time.Millisecond, Logger: slog.New(h.out)}
}

func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) exec(query string, args ...any) {
	h.Helper()
	_, err := h.db.ExecContext(context.Background(), query, args...)
	h.must(err)
}

// until polls cond until it holds.
func (h *harness) until(what string, cond func() bool) {
	h.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			h.Fatalf("waited %v for: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond) // between two polls
	}
}

func relayConfig(s outbox.Source) *outbox.RelayConfig {
	return &outbox.RelayConfig{
		Lease: time.Second, Batch: 50, PollMin: 5 * time.Millisecond, PollMax: 50 * time.Millisecond, Sweep: time.Second,
		MaxBackoff: 50 * time.Millisecond, BlockRetry: 100 * time.Millisecond, Logger: quiet(), Source: s,
	}
}

// running is a relay with a source, under way.
type running struct {
	*outbox.Relay
	src  *binlog.Source
	stop func() // ends it and waits; safe to call again
}

func (h *harness) relay(pub outbox.Publisher, change ...func(*binlog.Config, *outbox.RelayConfig)) *running {
	h.Helper()
	cfg := h.config()
	rcfg := relayConfig(nil)
	rcfg.Logger = slog.New(h.out)
	for _, c := range change {
		c(&cfg, rcfg)
	}
	src, err := binlog.New(cfg)
	h.must(err)
	rcfg.Source = src
	r := outbox.NewRelay(h.box, h.db, pub, rcfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			h.Errorf("relay: %v", err)
		}
	}()
	stop := func() { cancel(); <-done }
	h.Cleanup(stop)
	return &running{Relay: r, src: src, stop: stop}
}

// following waits until the relay gets its messages from the log.
func (h *harness) following(r *running) {
	h.Helper()
	n := 0
	h.until("a message from the log", func() bool {
		n++
		h.write(fmt.Sprintf("probe-%d", n%50), n)
		time.Sleep(5 * time.Millisecond) // it is a poll
		return r.Stats().Streamed > 0
	})
}

// write commits one message.
func (h *harness) write(key string, seq int) {
	h.Helper()
	h.must(h.box.Tx(context.Background(), h.db, func(tx *sql.Tx) error {
		return h.box.Write(context.Background(), tx, message(key, seq))
	}))
}

func message(key string, seq int) outbox.Message {
	return outbox.Message{Topic: "test", Key: key, Body: []byte(strconv.Itoa(seq))}
}

var errRollback = errors.New("rolled back on purpose")

// load lets writers work until the func is called, which waits for them. Errors
// of the server are part of the game: the counters tell what was committed.
func (h *harness) load(pace time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 7))
			for ctx.Err() == nil {
				if err := h.bump(rnd); err != nil && !errors.Is(err, errRollback) {
					time.Sleep(10 * time.Millisecond) // the server is away
				}
				if pace > 0 {
					time.Sleep(rand.N(2 * pace))
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	h.Cleanup(stop)
	return stop
}

// bump locks a shared key by its counter and writes its next message, or several.
func (h *harness) bump(rnd *rand.Rand) error {
	ctx, k := context.Background(), rnd.IntN(keys)
	return h.box.Tx(ctx, h.db, func(tx *sql.Tx) error {
		n := 1 + rnd.IntN(2)
		if _, err := tx.ExecContext(ctx, `UPDATE counters SET seq = seq + ? WHERE k = ?`, n, k); err != nil {
			return err
		}
		var seq int
		if err := tx.QueryRowContext(ctx, `SELECT seq FROM counters WHERE k = ?`, k).Scan(&seq); err != nil {
			return err
		}
		for i := range n {
			if err := h.box.Write(ctx, tx, message(keyName(k), seq-n+1+i)); err != nil {
				return err
			}
		}
		switch rnd.IntN(50) {
		case 0, 1, 2:
			time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond) // a slow commit
		case 3:
			time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond) // a very slow one
		}
		if rnd.IntN(100) < 10 {
			return errRollback
		}
		return nil
	})
}

func keyName(k int) string { return fmt.Sprintf("shared-%d", k) }

// committed is how many messages of each shared key were committed.
func (h *harness) committed() (n [keys]int) {
	h.Helper()
	for k := range n {
		h.until("the counters", func() bool {
			return h.db.QueryRowContext(context.Background(), `SELECT seq FROM counters WHERE k = ?`, k).Scan(&n[k]) == nil
		})
	}
	return n
}

// result waits until every committed message is in the log, and wants each key's
// in order. It answers how many came again, and how many there are.
func (h *harness) result(messages func() []outbox.Message) (again, total int) {
	h.Helper()
	want := h.committed()
	sum := 0
	for _, n := range want {
		sum += n
	}
	var last [keys]int
	h.until(fmt.Sprintf("%d messages", sum), func() bool {
		last, again, total = [keys]int{}, 0, 0
		for _, m := range messages() {
			var k int
			if _, err := fmt.Sscanf(m.Key, "shared-%d", &k); err != nil {
				continue
			}
			total++
			seq, err := strconv.Atoi(string(m.Body))
			h.must(err)
			switch {
			case seq == last[k]+1:
				last[k]++
			case seq <= last[k]:
				again++
			default:
				h.Fatalf("key %d: message %d was published before %d", k, seq, last[k]+1)
			}
		}
		return last == want
	})
	h.Logf("%d messages of %d keys: 0 lost, 0 out of order, %d came again", sum, keys, again)
	return again, total
}

// empty waits until the tables are.
func (h *harness) empty() {
	h.Helper()
	h.until("an empty outbox", func() bool {
		b, err := outbox.Depth(context.Background(), h.db, outbox.MySQL)
		return err == nil && b.Rows == 0
	})
}
