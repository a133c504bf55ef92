package inbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// memberEnv makes this program a member of a consumer group, for a test to end it.
const memberEnv = "AMENDS_TEST_MEMBER"

func TestMain(m *testing.M) {
	if as := os.Getenv(memberEnv); as != "" {
		if err := (&member{}).run(as); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// member is what a process needs to be one.
type member struct {
	Brokers          []string
	Group, Topic     string
	DSN              string
	Session, Timeout time.Duration
}

// run consumes until SIGTERM, or as long as a test may take.
func (m *member) run(as string) error {
	if err := json.Unmarshal([]byte(as), m); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.Timeout)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	db, err := sql.Open("mysql", m.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := NewConsumer(m.Brokers, m.Group, []string{m.Topic}, db, outbox.MySQL, insertHandled, m.config())
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

func (m *member) config() *ConsumerConfig {
	return &ConsumerConfig{SessionTimeout: m.Session, Heartbeat: 50 * time.Millisecond, Backoff: 5 * time.Millisecond, Logger: silent}
}

// TestMembersEnd has a process of a busy group killed, stopped in order, and paused for longer than its session: the
// others take over, and what it had under way is handled once and in the order of its key, also when it wakes up.
func TestMembersEnd(t *testing.T) {
	t.Parallel()
	b := servers(t)
	b.connect(t, servicestest.Kafka(t)...)
	m := &member{
		Brokers: b.brokers, Group: b.group, Topic: b.topic(t, 4), DSN: b.dsn, Session: 2 * time.Second, Timeout: 2 * time.Minute,
	}
	one := b.consumer(t, *m.config(), insertHandled, m.Topic)
	start(t, one)
	const n, keys = 20, 23
	published := 0
	more := func() { b.publish(t, m.Topic, published, n, keys); published += n }
	others := func() int { return b.handled(t) - int(one.Stats().Handled) }
	for _, end := range []struct {
		name string
		do   func(p *os.Process) error
	}{
		{"kill", func(p *os.Process) error { return p.Kill() }},
		{"stop", func(p *os.Process) error { return p.Signal(syscall.SIGTERM) }},
		{"pause", func(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			other := m.start(t)
			share := others()
			eventually(t, "the other has its share", func() bool { more(); return others() > share+50 })
			if err := end.do(other); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is a member no more", func() bool { more(); return b.members(t) == 1 })
			if end.name == "pause" { // and wakes up with handlers under way, whose claims the others wait for
				before := one.Stats().Handled
				eventually(t, "the others go on", func() bool { more(); return one.Stats().Handled > before+2*n })
				if err := other.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all handled", func() bool { return b.handled(t) == published })
		})
	}
	b.check(t, published)
}

// start runs a member as a process, killed at the end of the test.
func (m *member) start(t *testing.T) *os.Process {
	t.Helper()
	as, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), memberEnv+"="+string(as))
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(cmd.Wait)
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = g.Wait()           // killed, as a rule
	})
	return cmd.Process
}

// handled is how many messages were handled by all.
func (b *bench) handled(t *testing.T) (n int) {
	t.Helper()
	if err := b.db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM handled`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// members is how many the group has.
func (b *bench) members(t *testing.T) (n int) {
	t.Helper()
	b.client(t, func(c *kafka.Client) error {
		res, err := c.DescribeGroups(t.Context(), &kafka.DescribeGroupsRequest{GroupIDs: []string{b.group}})
		if err == nil {
			n = len(res.Groups[0].Members)
		}
		return err
	})
	return n
}
