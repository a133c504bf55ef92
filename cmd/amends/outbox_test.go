package main_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// TestOutbox acts on an outbox whose broker is away, through a relay and
// straight on the database.
func TestOutbox(t *testing.T) {
	t.Parallel() // most of its time it waits
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "orders.db")
		testOutbox(t, openDatabase(t, file), outbox.SQLite, environ(), "--sqlite", file)
	})
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		dsn := servicestest.MySQL(t)
		testOutbox(t, openMySQL(t, dsn), outbox.MySQL, environ("AMENDS_MYSQL_DSN="+dsn))
	})
}

func testOutbox(t *testing.T, db *sql.DB, d *outbox.Dialect, env []string, place ...string) {
	box := outbox.New(d, nil)
	err := box.Tx(t.Context(), db, func(tx *sql.Tx) error {
		return box.Write(t.Context(), tx,
			outbox.Message{Topic: "orders", Key: "a", Body: []byte("first")}, outbox.Message{Topic: "orders", Key: "a"},
			outbox.Message{Topic: "bills", Key: "b"}, outbox.Message{Topic: "bills", Key: "b"}, outbox.Message{Topic: "bills", Key: "b"})
	})
	if err != nil {
		t.Fatal(err)
	}
	nobody := nobodyListens(t)
	p := startIn(t, env, append([]string{"relay", "--kafka", nobody, "--listen", "127.0.0.1:0", "--lease", "2s"}, place...)...)
	addr := p.waitFor(t, `^amends: outbox served on (127\.0\.0\.1:\d+)$`)[1]
	for _, where := range [][]string{{"--addr", addr}, place} {
		actThrough(t, env, where)
	}
	r := amendsIn(t, env, append([]string{"outbox", "park", "b", "--reason", "r"}, place...)...)
	gone := amendsIn(t, env, "outbox", "dead", "discard", "--key", "b", "--reason", "r", "--yes", "--addr", addr)
	if r.code != 0 || gone.code != 0 || !strings.Contains(gone.stdout, "3 messages") {
		t.Errorf("park and discard: %+v, %+v", r, gone)
	}
	acts := amendsIn(t, env, "outbox", "acts", "--addr", addr).stdout
	if !strings.Contains(acts, "anonymous") || !strings.Contains(acts, "(database)") {
		t.Errorf("who acted is missing:\n%s", acts)
	}
	health, err := healthpb.NewHealthClient(connect(t, addr)).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := amendsIn(t, environ(), "outbox", "depth", "--addr", addr); r.code != 1 || !strings.Contains(r.stderr, "no relay answers") {
		t.Errorf("of no relay: %+v", r)
	}
}

// actThrough shows, skips, parks and replays, and leaves the messages as they were.
func actThrough(t *testing.T, env, where []string) {
	say := func(args ...string) string {
		t.Helper()
		r := amendsIn(t, env, append(append([]string{"outbox"}, args...), where...)...)
		if r.code != 0 {
			t.Fatalf("amends outbox %v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
		}
		return r.stdout
	}
	lines := func(s string) int { return strings.Count(s, "\n") - 1 }
	if got := say("depth"); !strings.Contains(got, "\nbills") || !strings.Contains(got, "\nPARTITION") {
		t.Errorf("depth:\n%s", got)
	}
	eventually(t, "two blocked keys", func() bool { return lines(say("blocked")) == 2 })
	if n := lines(say("messages", "--topic", "bills", "--limit", "2")); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	var list struct {
		Messages []struct{ Position string }
	}
	if err := json.Unmarshal([]byte(say("messages", "--key", "a", "--output", "json")), &list); err != nil || len(list.Messages) != 2 {
		t.Fatalf("messages as JSON: %v, %v", list, err)
	}
	at := list.Messages[0].Position
	if got := say("skip", at, "--dry-run"); !strings.Contains(got, "nothing was") {
		t.Errorf("dry run: %s", got)
	}
	if got := say("skip", at, "--reason", "ticket 7"); !strings.Contains(got, "skip position "+at+": 1 messages") {
		t.Errorf("skip: %s", got)
	}
	if got := say("park", "b", "--reason", "ticket 7"); !strings.Contains(got, "park key b: 3 messages") {
		t.Errorf("park: %s", got)
	}
	if n := lines(say("dead", "list")); n != 4 {
		t.Errorf("%d dead letters, want 4", n)
	}
	number := strings.Fields(strings.Split(say("dead", "list", "--key", "a"), "\n")[1])[0]
	if got := say("dead", "get", number); !strings.Contains(got, "key:       a") {
		t.Errorf("dead letter:\n%s", got)
	}
	say("dead", "get", number, "--body")
	if got := say("dead", "replay", number, "--reason", "ticket 7"); !strings.Contains(got, "1 messages (done)") {
		t.Errorf("replay: %s", got)
	}
	if got := say("dead", "replay", "--topic", "bills", "--reason", "ticket 7"); !strings.Contains(got, "3 messages") {
		t.Errorf("replay: %s", got)
	}
	if n := lines(say("acts", "--limit", "4")); n != 4 {
		t.Errorf("%d acts, want 4", n)
	}
}

// nobodyListens is an address that refuses connections.
func nobodyListens(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// TestOutboxUsage: what is wrong in a call is said before anything is asked.
func TestOutboxUsage(t *testing.T) {
	for _, args := range []string{
		"outbox depth --addr 127.0.0.1:1 --sqlite x", "outbox skip --reason r", "outbox skip 1-1 --addr 127.0.0.1:1", "outbox park --reason r",
		"outbox park k --position 1-1 --reason r", "outbox dead replay --reason r", "outbox dead replay x --reason r",
		"outbox dead replay 1 --topic t --reason r", "outbox dead discard 1 --reason r", "outbox dead get x", "outbox messages --limit 0",
		"outbox nothing", "relay --kafka 127.0.0.1:1 --sqlite x --listen 0.0.0.0:0", "relay --kafka 127.0.0.1:1 --sqlite x --listen-insecure",
		"relay --kafka 127.0.0.1:1 --sqlite x --redis-prefix p", "relay --kafka 127.0.0.1:1 --sqlite x --lease 1ms",
	} {
		if r := amends(t, strings.Fields(args)...); r.code != 2 || r.stderr == "" {
			t.Errorf("amends %s: exit code %d, said %q; want 2", args, r.code, r.stderr)
		}
	}
}

// TestRelayAsksWhoCalls: behind an --auth-file nobody gets in without a token.
func TestRelayAsksWhoCalls(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders.db")
	openDatabase(t, file)
	viewer, first := newToken(t, "--subject", "v", "--grant", "viewer@shop")
	operator, second := newToken(t, "--subject", "o", "--grant", "operator@shop")
	other, third := newToken(t, "--subject", "x", "--grant", "operator@other")
	auth := filepath.Join(t.TempDir(), "auth.json")
	text := fmt.Sprintf(`{"tokens": [%s, %s, %s]}`, first, second, third)
	if err := os.WriteFile(auth, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "relay", "--kafka", nobodyListens(t), "--sqlite", file, "--listen", "127.0.0.1:0",
		"--auth-file", auth, "--namespace", "shop")
	addr := p.waitFor(t, `^amends: outbox served on (127\.0\.0\.1:\d+)$`)[1]
	if r := amends(t, "outbox", "depth", "--addr", addr); r.code == 0 || !strings.Contains(r.stderr, "UNAUTHENTICATED") {
		t.Errorf("without a token: %+v", r)
	}
	if r := amends(t, "outbox", "depth", "--addr", addr, "--token", viewer); r.code != 0 {
		t.Errorf("a viewer's depth: %+v", r)
	}
	r := amends(t, "outbox", "park", "k", "--reason", "r", "--addr", addr, "--token", viewer)
	if r.code == 0 || !strings.Contains(r.stderr, "needs the role operator") {
		t.Errorf("a viewer parks: %+v", r)
	}
	r = amends(t, "outbox", "park", "k", "--reason", "r", "--addr", addr, "--token", operator)
	if r.code == 0 || !strings.Contains(r.stderr, "no message of key") {
		t.Errorf("an operator parks what is not there: %+v", r)
	}
	r = amends(t, "outbox", "depth", "--addr", addr, "--token", other)
	if r.code == 0 || !strings.Contains(r.stderr, "PERMISSION_DENIED") {
		t.Errorf("an operator of another namespace: %+v", r)
	}
	_, err := healthpb.NewHealthClient(connect(t, addr)).List(t.Context(), &healthpb.HealthListRequest{})
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("the list of health: %v", err)
	}
}

// TestRelaysShareRedis: two databases on one Redis write a message each with the
// same idempotency key, and both are published. A second one of the same database
// is a duplicate.
func TestRelaysShareRedis(t *testing.T) {
	_, at := dev(t)
	createTopic(t, at.kafka, "orders")
	dir := t.TempDir()
	for _, step := range []struct{ file, want string }{
		{"a.db", "relayed 1 messages, dropped 0 duplicates"}, {"b.db", "relayed 1 messages, dropped 0 duplicates"},
		{"a.db", "relayed 0 messages, dropped 1 duplicates"},
	} {
		file := filepath.Join(dir, step.file)
		db, box := openDatabase(t, file), outbox.New(outbox.SQLite, nil)
		err := box.Tx(t.Context(), db, func(tx *sql.Tx) error {
			return box.Write(t.Context(), tx, outbox.Message{Topic: "orders", Key: "a", IdempotencyKey: "order-1"})
		})
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, "relay", "--sqlite", file, "--kafka", at.kafka, "--redis", at.redis)
		eventually(t, "the outbox is empty", func() bool { return rows(t, db) == 0 })
		if code := p.stop(t); code != 0 || !strings.Contains(p.everything(), step.want) {
			t.Errorf("%s: exit code %d, it said:\n%s\nwant %q", step.file, code, p.everything(), step.want)
		}
	}
}
