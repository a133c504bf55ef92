package bank

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/sdk"
)

// Config is all that a process of the bank's is told; in a file, as it holds
// passwords.
type Config struct {
	Name         string            `json:"name"`         // of the process
	Coordinators []string          `json:"coordinators"` // host:port
	Databases    map[string]string `json:"databases"`    // DSNs by service, and of the reader under ""
	Kafka        []string          `json:"kafka"`
	Redis        string            `json:"redis"`
	Topic        string            `json:"topic"`
	Group        string            `json:"group"`
}

// Ready begins the line that a process prints once it works.
const Ready = "torture: ready: "

// Save writes a configuration to a file.
func (c Config) Save(path string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// Load reads what Save wrote.
func Load(path string) (c Config, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Dial connects to the coordinators.
type Dial func(addresses []string, log *slog.Logger) (grpc.ClientConnInterface, io.Closer, error)

// concurrency is how many handlers of a service run at once: processes share a
// small machine.
const concurrency = 8

// Work runs an instance of every service that takes part in transactions, until
// ctx ends. It says on w when it works.
func Work(ctx context.Context, c Config, dial Dial, log *slog.Logger, w io.Writer) error {
	conn, closer, err := dial(c.Coordinators, log)
	if err != nil {
		return err
	}
	defer closer.Close() // drained by Run
	var ps []*sdk.Participant
	for _, service := range []string{East, West, Notes} {
		db, err := Open(c.Databases[service], concurrency+2)
		if err != nil {
			return err
		}
		defer db.Close() // what was committed is durable
		ps = append(ps, c.participant(service, db, log))
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range ps {
		g.Go(func() error { return p.Run(ctx, conn) })
	}
	g.Go(func() error {
		_, err := fmt.Fprintf(w, "%s%s\n", Ready, c.Name)
		return err
	})
	return g.Wait()
}

func (c Config) participant(service string, db *sql.DB, log *slog.Logger) *sdk.Participant {
	box := outbox.New(outbox.MySQL, &outbox.Config{Logger: log})
	p := sdk.NewParticipant(service, db, outbox.MySQL, &sdk.ParticipantConfig{
		Instance: c.Name, Concurrency: concurrency, DrainTimeout: 5 * time.Second, SkipMigrate: true, Outbox: box, Logger: log,
	})
	if service == Notes {
		offerNotes(p, box, c.Topic)
		return p
	}
	offerSide(p, service)
	return p
}

const (
	seenSQL  = `INSERT INTO seen (list, n, msg) VALUES (?, ?, ?)`
	tallySQL = `UPDATE tallies SET n = n + 1 WHERE list = ?`
)

// Read notes what the lists' messages say, until ctx ends. It says on w when it
// works.
func Read(ctx context.Context, c Config, log *slog.Logger, w io.Writer) error {
	db, err := Open(c.Databases[""], concurrency+2)
	if err != nil {
		return err
	}
	defer db.Close() // what was committed is durable
	cache := redis.NewClient(&redis.Options{Addr: c.Redis})
	defer cache.Close() // it only saves work
	done, err := outbox.NewRedisKeys(cache, &outbox.RedisConfig{Prefix: c.Group + ":", Logger: log})
	if err != nil {
		return err
	}
	consumer, err := inbox.NewConsumer(c.Kafka, c.Group, []string{c.Topic}, db, outbox.MySQL, see, &inbox.ConsumerConfig{
		Done: done, SessionTimeout: 6 * time.Second, Backoff: 50 * time.Millisecond, Attempts: 50, Logger: log,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return consumer.Run(ctx) })
	g.Go(func() error {
		_, err := fmt.Fprintf(w, "%s%s\n", Ready, c.Name)
		return err
	})
	return g.Wait()
}

func see(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
	var e Entry
	if err := json.Unmarshal(m.Body, &e); err != nil {
		return outbox.Poison(err)
	}
	if _, err := tx.ExecContext(ctx, seenSQL, e.List, e.N, m.ID); err != nil {
		return err
	}
	return must(ctx, tx, tallySQL, e.List)
}
