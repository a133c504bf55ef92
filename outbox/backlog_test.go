package outbox

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
)

const (
	createBusiness = `CREATE TABLE business (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer BIGINT NOT NULL,
cents BIGINT NOT NULL, note VARCHAR(200) NOT NULL)`
	insertBusiness = `INSERT INTO business (customer, cents, note) VALUES (?, ?, ?)`

	businessWriters = 8
	backlogKeys     = 1000
)

// TestBacklogBesideBusiness drains a backlog while the service works, and
// compares its inserts with those beside an idle relay, in pairs. By default it
// is small, and checks only that everything comes out. With AMENDS_BACKLOG, the
// number of messages, for example 1000000, it says what it costs: figures for a
// machine that does nothing else.
func TestBacklogBesideBusiness(t *testing.T) {
	rows, pairs, length := 4000, 1, 200*time.Millisecond
	if s := os.Getenv("AMENDS_BACKLOG"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < backlogKeys {
			t.Fatalf("AMENDS_BACKLOG is %q: give a number of %d or more", s, backlogKeys)
		}
		rows, pairs, length = n, 5, 3*time.Second
	}
	b := newBacklog(t, rows)
	for _, perSecond := range []int{0, 1000} {
		var alone, beside []effort
		var drained []float64
		for range pairs {
			alone = append(alone, b.business(t, length, perSecond))
			stop := b.relay(t)
			before := b.r.Stats().Published
			beside = append(beside, b.business(t, length, perSecond))
			drained = append(drained, float64(b.r.Stats().Published-before)/length.Seconds())
			stop()
		}
		a, w := medianEffort(alone), medianEffort(beside)
		t.Logf("business at %s: alone %.0f/s, p50 %v, p99 %v; beside a relay that drains %.0f/s: %.0f/s (%+.1f %%), p50 %v, p99 %v",
			map[bool]string{true: "full speed", false: "1,000/s"}[perSecond == 0],
			a.rate, a.p50, a.p99, median(drained), w.rate, 100*(w.rate/a.rate-1), w.p50, w.p99)
	}
	stop := b.relay(t)
	b.awaitEmpty(t)
	stop()
	checkSeries(t, b.broker, b.topic, rows, backlogKeys)
}

// backlog is an outbox full of messages beside a table of the service.
type backlog struct {
	db     *sql.DB
	box    *Outbox
	pub    *KafkaPublisher
	broker string
	topic  string
	r      *Relay
}

func newBacklog(t *testing.T, rows int) *backlog {
	t.Helper()
	brokers := servicestest.Kafka(t)
	b := &backlog{db: openMySQL(t, func(*mysql.Config) {}), broker: brokers[0], topic: servicestest.Topic(t, brokers, 4)}
	b.db.SetMaxIdleConns(2 * businessWriters) // otherwise connecting is most of the work
	b.box = New(MySQL, &Config{MaxRows: -1, Logger: slog.New(slog.DiscardHandler)})
	b.pub = newPublisher(t, KafkaConfig{}, b.broker)
	if _, err := b.db.ExecContext(t.Context(), createBusiness); err != nil {
		t.Fatal(err)
	}
	msgs := series(b.topic, 0, rows, backlogKeys)
	fill := map[string]string{"fill": strings.Repeat("f", 170)} // about 200 bytes each
	for i := range msgs {
		msgs[i].Headers = fill
	}
	for chunk := range slices.Chunk(msgs, 1000) {
		err := b.box.Tx(t.Context(), b.db, func(tx *sql.Tx) error { return b.box.Write(t.Context(), tx, chunk...) })
		if err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// relay runs one until stop.
func (b *backlog) relay(t *testing.T) (stop func()) {
	t.Helper()
	b.r = NewRelay(b.box, b.db, b.pub, &RelayConfig{Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(patience); b.r.Stats().LeasesTaken < Partitions && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	return stop
}

func (b *backlog) awaitEmpty(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		d, err := Depth(t.Context(), b.db, MySQL)
		if err != nil {
			t.Fatal(err)
		}
		if d.Rows == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are left", d.Rows)
		}
	}
}

// effort is what the service got done.
type effort struct {
	rate     float64 // inserts per second
	p50, p99 time.Duration
}

// business inserts rows for a while, one after the other in each writer, as fast
// as it can or at a pace that all writers share. Latencies at a pace count from
// when an insert was due.
func (b *backlog) business(t *testing.T, length time.Duration, perSecond int) effort {
	t.Helper()
	began := time.Now()
	took := make([][]time.Duration, businessWriters)
	var wg sync.WaitGroup
	for w := range businessWriters {
		wg.Go(func() {
			due := began
			for time.Since(began) < length {
				if perSecond > 0 {
					due = due.Add(businessWriters * time.Second / time.Duration(perSecond))
					time.Sleep(time.Until(due))
				} else {
					due = time.Now()
				}
				if _, err := b.db.ExecContext(t.Context(), insertBusiness, w, 100, strings.Repeat("n", 100)); err != nil {
					t.Error(err)
					return
				}
				took[w] = append(took[w], time.Since(due))
			}
		})
	}
	wg.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) == 0 {
		t.Fatal("the service got nothing done")
	}
	return effort{float64(len(all)) / time.Since(began).Seconds(), all[len(all)/2], all[len(all)*99/100]}
}

func medianEffort(es []effort) effort {
	var rates []float64
	var p50, p99 []time.Duration
	for _, e := range es {
		rates, p50, p99 = append(rates, e.rate), append(p50, e.p50), append(p99, e.p99)
	}
	return effort{median(rates), median(p50), median(p99)}
}

func median[T float64 | time.Duration](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
