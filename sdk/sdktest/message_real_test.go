package sdktest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
)

// As many messages are sent.
const keys, perKey = 8, 12

// TestMessagesReachTheLog: two couriers and two relays on one database, Kafka, a
// network that loses and repeats, and senders that die: every message whose work
// committed is in the log, once in effect, and those of each key in their order.
func TestMessagesReachTheLog(t *testing.T) {
	t.Run("SQLite and kfake", func(t *testing.T) {
		broker, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(broker.Close)
		if err := broker.CreateTopic(placed, 1); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "courier.db")))
		if err != nil {
			t.Fatal(err)
		}
		reachTheLog(t, db, outbox.SQLite, []string{broker.Addr()}, placed)
	})
	t.Run("MySQL and Kafka", func(t *testing.T) {
		db, err := sql.Open("mysql", servicestest.MySQL(t))
		if err != nil {
			t.Fatal(err)
		}
		brokers := servicestest.Kafka(t)
		reachTheLog(t, db, outbox.MySQL, brokers, servicestest.Topic(t, brokers, 1))
	})
}

func reachTheLog(t *testing.T, db *sql.DB, dialect *outbox.Dialect, brokers []string, topic string) {
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := outbox.Migrate(t.Context(), db, dialect); err != nil {
		t.Fatal(err)
	}
	log, err := outbox.NewKafka(brokers, &outbox.KafkaConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	w := sdktest.New(t, &sdktest.Config{Faults: sdktest.Faults{LoseReplies: 0.05, Repeat: 0.2, Seed: 1}})
	ctx, stop := context.WithCancel(context.Background())
	var relays sync.WaitGroup
	t.Cleanup(func() { stop(); relays.Wait() })
	for range 2 {
		box := outbox.New(dialect, &outbox.Config{Logger: quiet})
		w.Attend(sdk.NewCourier(box, db, &sdk.ParticipantConfig{Logger: quiet}))
		relay := outbox.NewRelay(box, db, log, &outbox.RelayConfig{Logger: quiet})
		relays.Go(func() {
			if err := relay.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	o := &orders{done: map[string]bool{}}
	checker := sdk.NewChecker("orders", &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleCheck(checker, placed, o.check)
	w.Attend(checker)

	want := sendMany(t, w.Client(), o, topic)
	total := 0
	for _, ids := range want {
		total += len(ids)
	}
	got := readLog(t, brokers, topic, total)
	for key, ids := range want {
		if !slices.Equal(got[key], ids) {
			t.Errorf("key %s: the log has %q\nwant %q", key, got[key], ids)
		}
	}
}

// sendMany has one sender for each of a few keys, each with its own way to die,
// waits until everything is decided, and returns which messages have to reach the
// log, by key.
func sendMany(t *testing.T, c *sdk.Client, o *orders, topic string) map[string][]string {
	t.Helper()
	died := errors.New("died")
	var all sync.WaitGroup
	for k := range keys {
		all.Go(func() {
			for i := range perKey {
				gid, work := fmt.Sprintf("%d-%d", k, i), o.work
				switch (5*i + k) % 6 {
				case 0:
					work = func(ctx context.Context, gid string) error { return errors.Join(o.work(ctx, gid), died) }
				case 1:
					work = func(context.Context, string) error { return died }
				case 2:
					work = func(context.Context, string) error { return sdk.Refuse(died) }
				}
				m := outbox.Message{Topic: topic, Key: fmt.Sprint(k), Body: []byte(gid)}
				if i%5 == 3 {
					m.NotBefore = time.Now().Add(time.Second) // which those behind it wait for, too
				}
				// On a slow machine the time may be over before the work began; then it is dropped.
				err := sdk.SendMessage(t.Context(), c, m, placed, work, &sdk.MessageConfig{GID: gid, Timeout: 2 * time.Second})
				if err != nil && !errors.Is(err, died) && !errors.Is(err, sdk.ErrDeadlinePassed) {
					t.Errorf("%s: %v", gid, err)
				}
			}
		})
	}
	all.Wait()
	want := map[string][]string{}
	for k := range keys {
		for i := range perKey {
			gid := fmt.Sprintf("%d-%d", k, i)
			err := c.Run(gid).Wait(t.Context())
			if done := o.knows(gid); done != (err == nil) || err != nil && !errors.Is(err, sdk.ErrRolledBack) {
				t.Errorf("%s: its work is done: %v, its message: %v", gid, done, err)
			}
			if err == nil {
				want[fmt.Sprint(k)] = append(want[fmt.Sprint(k)], gid)
			}
		}
	}
	return want
}

// readLog reads until so many messages were there, those that came before not
// counted, and a moment longer.
func readLog(t *testing.T, brokers []string, topic string, n int) map[string][]string {
	t.Helper()
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: topic, MaxWait: 100 * time.Millisecond})
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	seen, byKey := map[string]bool{}, map[string][]string{}
	for len(seen) < n {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		m, err := r.ReadMessage(ctx)
		cancel()
		if err != nil {
			t.Fatalf("after %d of %d messages: %v; have %v", len(seen), n, err, byKey)
		}
		id := string(m.Value)
		if seen[id] {
			continue
		}
		seen[id] = true
		key, _, _ := strings.Cut(id, "-")
		byKey[key] = append(byKey[key], id)
	}
	return byKey
}
