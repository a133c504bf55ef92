package outboxtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxtest"
)

const (
	processes    = 4
	goroutines   = 3  // of each process
	messagesEach = 40 // of each goroutine
	processBound = 160
	dsnVariable  = "AMENDS_TEST_WRITER"
	sizeOfBody   = 100
)

// processConfig bounds messages, and their bytes such that both bounds matter.
func processConfig() *outbox.Config {
	return &outbox.Config{MaxRows: processBound, MaxMessage: 1000, MaxBytes: processBound * 170}
}

// TestBoundOfManyProcesses has several processes write at full rate while nobody
// relays: the outbox stays within its bounds and the stated overshoot, and each
// process goes on when it is relayed again.
func TestBoundOfManyProcesses(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		dsn := outbox.SQLiteDSN(filepath.Join(t.TempDir(), "app.db"))
		testManyProcesses(t, outbox.SQLite, "sqlite", dsn)
	})
	t.Run("mysql", func(t *testing.T) { testManyProcesses(t, outbox.MySQL, "mysql", servicestest.MySQL(t)) })
}

func testManyProcesses(t *testing.T, d *outbox.Dialect, driver, dsn string) {
	db := openWriterDB(t, driver, dsn)
	if err := outbox.Migrate(t.Context(), db, d); err != nil {
		t.Fatal(err)
	}
	var children errgroup.Group
	for p := range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWriterProcess$", "-test.count=1")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s", dsnVariable, p, driver, dsn))
		children.Go(func() error {
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("writer: %w: %s", err, out)
			}
			return nil
		})
	}
	rows, bytes := watchBound(t, db)
	log := &outboxtest.Log{}
	ctx, cancel := context.WithCancel(context.Background())
	relay := outbox.NewRelay(outbox.New(d, nil), db, log, nil)
	var g errgroup.Group
	g.Go(func() error { return relay.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	if err := children.Wait(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "an empty outbox", func() bool { return tableSize(t, db).rows == 0 })
	checkWriters(t, log.Messages())
	// The stated overshoot; of each process, what is not committed yet is a message of each goroutine.
	others, open := int64(processes-1), int64(goroutines)
	if most := processBound + others*(max(processBound/16, 1)+open); rows > most {
		t.Errorf("the outbox held %d rows, the bound with its overshoot is %d", rows, most)
	}
	c := processConfig()
	if most := c.MaxBytes + others*(max(c.MaxBytes/16, 170)+open*170); bytes > most {
		t.Errorf("the outbox held %d bytes, the bound with its overshoot is %d", bytes, most)
	}
	t.Logf("up to %d rows of %d, %d bytes of %d", rows, processBound, bytes, c.MaxBytes)
}

// watchBound looks at the table until it has been full for a while.
func watchBound(t *testing.T, db *sql.DB) (rows, bytes int64) {
	t.Helper()
	c := processConfig()
	var since time.Time
	waitFor(t, "a full outbox", func() bool {
		size := tableSize(t, db)
		rows, bytes = max(rows, size.rows), max(bytes, size.bytes)
		if full := size.rows >= processBound*9/10 || size.bytes >= c.MaxBytes*9/10; full && since.IsZero() {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > 2*time.Second
	})
	return rows, bytes
}

type size struct{ rows, bytes int64 }

func tableSize(t *testing.T, db *sql.DB) (s size) {
	t.Helper()
	var parts []string
	for p := range outbox.Partitions {
		parts = append(parts, fmt.Sprintf(`SELECT count(*) AS n, COALESCE(sum(length(msg_id) + length(topic) + length(msg_key)
+ length(body) + length(headers) + length(idem_key)), 0) AS w FROM amends_outbox_%d`, p))
	}
	query := "SELECT sum(n), sum(w) FROM (" + strings.Join(parts, " UNION ALL ") + ") AS s"
	if err := db.QueryRowContext(t.Context(), query).Scan(&s.rows, &s.bytes); err != nil {
		t.Fatal(err)
	}
	return s
}

// checkWriters wants each goroutine's messages once, in order.
func checkWriters(t *testing.T, msgs []outbox.Message) {
	t.Helper()
	next := map[string]int{}
	for _, m := range msgs {
		seq, _, _ := strings.Cut(string(m.Body), " ")
		if got, err := strconv.Atoi(seq); err != nil || got != next[m.Key]+1 {
			t.Fatalf("key %q: message %s came behind %d", m.Key, seq, next[m.Key])
		}
		next[m.Key]++
	}
	if len(next) != processes*goroutines || len(msgs) != processes*goroutines*messagesEach {
		t.Errorf("%d messages of %d keys were published", len(msgs), len(next))
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited for: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // between two polls
	}
}

// TestWriterProcess is one of the processes: it writes, and tries again whenever
// there was no room until its context ended.
func TestWriterProcess(t *testing.T) {
	config := os.Getenv(dsnVariable)
	if config == "" {
		return // it is one of the processes of TestBoundOfManyProcesses
	}
	name, rest, _ := strings.Cut(config, " ")
	driver, dsn, _ := strings.Cut(rest, " ")
	d := outbox.SQLite
	if driver == "mysql" {
		d = outbox.MySQL
	}
	db := openWriterDB(t, driver, dsn)
	box := outbox.New(d, processConfig())
	g, ctx := errgroup.WithContext(t.Context())
	for w := range goroutines {
		g.Go(func() error { return writeAll(ctx, db, box, fmt.Sprintf("%s-%d", name, w)) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func writeAll(ctx context.Context, db *sql.DB, box *outbox.Outbox, key string) error {
	for i := 1; i <= messagesEach; {
		m := outbox.Message{Topic: "t", Key: key, Body: fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", sizeOfBody))}
		err := tryOnce(ctx, db, box, m)
		switch {
		case err == nil:
			i++
		case !errors.Is(err, context.Canceled) || ctx.Err() != nil:
			return err
		}
	}
	return nil
}

// tryOnce gives up after a second without room. Once the transaction runs its
// context does not end: a commit under way would end in doubt.
func tryOnce(ctx context.Context, db *sql.DB, box *outbox.Outbox, m outbox.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := time.AfterFunc(time.Second, cancel)
	return box.Tx(ctx, db, func(tx *sql.Tx) error {
		if !patience.Stop() {
			return context.Canceled
		}
		return box.Write(ctx, tx, m)
	})
}

func openWriterDB(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(2 * processes)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
