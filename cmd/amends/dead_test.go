package main_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// TestDead lists, shows and requeues what a consumer gave up.
func TestDead(t *testing.T) {
	silent := slog.New(slog.DiscardHandler)
	k, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Topics: map[string]int{"orders": 2}, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	giveUp(t, k.Addr(), silent)
	say := func(args ...string) string {
		t.Helper()
		r := amends(t, append(append([]string{"dead"}, args...), "--kafka", k.Addr(), "--topic", "orders")...)
		if r.code != 0 {
			t.Fatalf("amends dead %v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
		}
		return r.stdout
	}
	lines := func(s string) int { return strings.Count(s, "\n") - 1 }
	if got := say("list"); lines(got) != 6 || !strings.Contains(got, "out of stock\uFFFD[31m") {
		t.Errorf("list:\n%q", got)
	}
	var list struct {
		DeadLetters []struct {
			Place, ID, Key, Group string
			Size                  int
		}
		NextPageToken string
	}
	if err := json.Unmarshal([]byte(say("list", "--key", "a", "--limit", "1", "--output", "json")), &list); err != nil ||
		len(list.DeadLetters) != 1 || list.NextPageToken == "" || list.DeadLetters[0].Key != "a" || list.DeadLetters[0].Size != 4 {
		t.Fatalf("list as JSON: %+v, %v", list, err)
	}
	if got := say("list", "--key", "a", "--page-token", list.NextPageToken); lines(got) != 2 {
		t.Errorf("the rest:\n%s", got)
	}
	at := list.DeadLetters[0].Place
	if got := say("show", at); !strings.Contains(got, "key:          a\n") || !strings.Contains(got, "body:         body\n") {
		t.Errorf("show:\n%s", got)
	}
	if got := say("show", at, "--body"); got != "body" {
		t.Errorf("body: %q", got)
	}
	consoleShowsLetters(t, k.Addr())
	for _, step := range []struct{ args, want string }{
		{"--id id-0 --dry-run", "1 messages (would be done; nothing was)"}, {"--key a --reason mended", "3 messages (done)"},
		{"--key a --reason mended", "0 messages"}, {"--all --reason mended -o json", `"requeued": 3`},
		{"--key a --reason again --requeued", "3 messages (done)"},
	} {
		if got := say(append([]string{"requeue"}, strings.Fields(step.args)...)...); !strings.Contains(got, step.want) {
			t.Errorf("requeue %s: %s", step.args, got)
		}
	}
	if got := say("list"); lines(got) != 0 {
		t.Errorf("what waits:\n%s", got)
	}
	if got := say("show", at); !strings.Contains(got, "because:      again\n") {
		t.Errorf("show:\n%s", got)
	}
	for _, args := range []string{"show 0/99999", "requeue 0/99999 --reason r"} {
		r := amends(t, append(append([]string{"dead"}, strings.Fields(args)...), "--kafka", k.Addr(), "--topic", "orders")...)
		if r.code != 1 || !strings.Contains(r.stderr, "no such dead letter") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// giveUp publishes six messages of two keys, and has a consumer give them up.
func giveUp(t *testing.T, addr string, log *slog.Logger) {
	t.Helper()
	db := openDatabase(t, filepath.Join(t.TempDir(), "db"))
	pub, err := outbox.NewKafka([]string{addr}, &outbox.KafkaConfig{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	var msgs []outbox.Message
	for i := range 6 {
		msgs = append(msgs, outbox.Message{ID: "id-" + string(rune('0'+i)), Topic: "orders", Key: []string{"a", "b"}[i%2], Body: []byte("body")})
	}
	if err := errors.Join(pub.Publish(t.Context(), msgs)...); err != nil {
		t.Fatal(err)
	}
	c, err := inbox.NewConsumer([]string{addr}, "mailer", []string{"orders"}, db, outbox.SQLite,
		func(context.Context, *sql.Tx, outbox.Message) error { return errors.New("out of stock\x1b[31m") },
		&inbox.ConsumerConfig{Attempts: 1, Backoff: time.Millisecond, Heartbeat: 50 * time.Millisecond, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	eventually(t, "all dead", func() bool { return c.Stats().Dead == 6 })
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestDeadUsage: what is wrong in a call is said before anything is asked.
func TestDeadUsage(t *testing.T) {
	const at = " --kafka 127.0.0.1:1 --topic t"
	for _, args := range []string{
		"list --topic t", "list --kafka 127.0.0.1:1", "list --kafka nonsense --topic t", "list --limit 0" + at, "list x" + at, "list --timeout 0s" + at,
		"show" + at, "show 7" + at, "show -1/2" + at, "requeue --reason r" + at, "requeue 1/2 --all --reason r" + at, "requeue 1/x --reason r" + at,
		"requeue --all" + at, "nothing",
	} {
		if r := amends(t, append([]string{"dead"}, strings.Fields(args)...)...); r.code != 2 || r.stderr == "" {
			t.Errorf("amends dead %s: exit code %d, said %q; want 2", args, r.code, r.stderr)
		}
	}
}

// consoleShowsLetters asks a coordinator's console for them.
func consoleShowsLetters(t *testing.T, broker string) {
	t.Helper()
	serve := []string{"serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--dead-letters", "orders"}
	p := start(t, append(serve, "--http", "127.0.0.1:0", "--dead-letters-kafka", broker)...)
	web := p.waitFor(t, `^amends: console on (\S+)$`)[1]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web+"outbox/orders.dead/v1/outbox", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"deadLetters":"6"`) {
		t.Errorf("the console: %s, %v", body, err)
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, args := range [][]string{serve, append(serve, "--dead-letters-kafka", broker), append(serve, "--http", "127.0.0.1:0")} {
		if r := amends(t, args...); r.code != 2 || !strings.Contains(r.stderr, "--dead-letters") {
			t.Errorf("%v: exit code %d, %s", args, r.code, r.stderr)
		}
	}
}
