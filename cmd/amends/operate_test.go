package main_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/amends-dev/amends/sdk"
)

// TestOperate acts on transactions of a real coordinator that wait for a service
// which is not there.
func TestOperate(t *testing.T) {
	_, addr := serve(t, t.TempDir())
	conn := connect(t, addr)
	client := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})
	for _, gid := range []string{"one", "two", "three", "four"} {
		if _, err := begin(t.Context(), client, gid, false); err != nil {
			t.Fatal(err)
		}
	}
	act := func(args string) string {
		t.Helper()
		return ok(t, append(strings.Fields(args), "--addr", addr, "--reason", "a test")...)
	}
	wants := func(out, want string) {
		t.Helper()
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	wants(act("tx pause one --dry-run"), "state:     RUNNING\n")
	wants(act("tx pause one --request-id p1"), "state:     RUNNING (paused)\n")
	wants(act("tx pause one --request-id p1"), "state:     RUNNING (paused)\n") // the same request again
	r := amends(t, "tx", "pause", "one", "--reason", "a test", "--addr", addr)
	if r.code != 1 || !strings.Contains(r.stderr, "ILLEGAL_VERB") || !strings.Contains(r.stderr, "resume") {
		t.Errorf("pause of a paused one: exit code %d, said %q; want what is legal", r.code, r.stderr)
	}
	r = amends(t, "tx", "resume", "one", "--reason", "a test", "--addr", addr, "--etag", "0")
	if r.code != 1 || !strings.Contains(r.stderr, "ETAG_MISMATCH") {
		t.Errorf("another etag: exit code %d, said %q", r.code, r.stderr)
	}
	wants(act("tx resume one"), "state:     RUNNING\n")
	wants(act(`tx complete two reserve --reply "by-hand"`), "DONE")
	wants(act("tx skip two charge"), "state:     COMMITTED\n")
	wants(act("tx fail three reserve"), "state:     ROLLING_BACK\n")
	wants(act("tx abandon four --yes"), "state:     ABANDONED\n")
	wants(act("bulk start retry --unfinished --wait"), "state:      done\n")
	openBank(t, conn)
	eventually(t, "one commits and three is undone", func() bool {
		return len(strings.Split(ok(t, "tx", "list", "--unfinished", "--addr", addr), "\n")) == 2
	})
	wants(ok(t, "tx", "events", "one", "--addr", addr), `"reason":"a test"`)
	wants(ok(t, "tx", "get", "three", "--addr", addr), "state:     ROLLED_BACK\n")
	wants(ok(t, "cluster", "--addr", addr), "bank ")
	wants(ok(t, "audit", "verify", "--all", "--addr", addr), "every link holds")
}

// TestStalled finds what waits for a service that is away, and tries all of it
// again in one command when it is back.
func TestStalled(t *testing.T) {
	const away = 5
	p := start(t, "serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--stall-after", "100ms", "--name", "first")
	addr := p.waitFor(t, `^amends: serving on (\S+) `)[1]
	conn := connect(t, addr)
	client := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})
	for _, gid := range []string{"a", "b", "c", "d", "e"} {
		if _, err := begin(t.Context(), client, gid, false); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are stalled", func() bool {
		out := ok(t, "tx", "list", "--stalled", "--participant", "bank", "--addr", addr)
		return strings.Count(out, "RUNNING (stalled)") == away
	})
	openBank(t, conn)
	out := ok(t, "bulk", "start", "retry", "--participant", "bank", "--unfinished", "--reason", "bank is back", "--wait", "--addr", addr)
	if !strings.Contains(out, "state:      done\n") || !strings.Contains(out, " 0 failed\n") {
		t.Errorf("printed\n%s", out)
	}
	eventually(t, "all commit", func() bool {
		return strings.Count(ok(t, "tx", "list", "--state", "committed", "--addr", addr), "COMMITTED") == away
	})
	if out := ok(t, "cluster", "members", "--addr", addr); !strings.Contains(out, "\nfirst") {
		t.Errorf("want the coordinator's name in\n%s", out)
	}
}

// TestServeEndsUnderAnHTTPWatch stops a coordinator while a browser watches.
func TestServeEndsUnderAnHTTPWatch(t *testing.T) {
	p := start(t, "serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--drain-timeout", "1s")
	addr := p.waitFor(t, `^amends: serving on (\S+) `)[1]
	console := p.waitFor(t, `^amends: console on (\S+)$`)[1]
	if _, err := begin(t.Context(), sdk.NewClient(connect(t, addr), &sdk.ClientConfig{Logger: quiet()}), "watched", false); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, console+"v1/transactions/watched:watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || resp.StatusCode != http.StatusOK {
		t.Fatalf("the watch answers %d, %q, %v", resp.StatusCode, lines.Text(), lines.Err())
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d; it said:\n%s", code, p.everything())
	}
}
