package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/sdk"
)

// TestOutside runs what docs/operations.md shows for curl, and reads the
// figures, from a coordinator with everything turned on that needs no other
// machine: sealed, stalled at once, and telling a webhook of it.
func TestOutside(t *testing.T) {
	alerts := make(chan []notify.Event, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = notify.Verify(r.Header.Get(notify.SignatureHeader), body, "hush", time.Now(), time.Minute)
		}
		var batch []struct{ Data notify.Event }
		if err != nil || json.Unmarshal(body, &batch) != nil {
			t.Errorf("a webhook that cannot be believed: %v", err)
		}
		var events []notify.Event
		for _, e := range batch {
			events = append(events, e.Data)
		}
		alerts <- events
	}))
	defer hook.Close()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys.json")
	key := `{"keys": [{"id": "k1", "key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}]}`
	if err := os.WriteFile(keys, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startIn(t, []string{"AMENDS_WEBHOOK_SECRET=hush"}, "serve", "--data-dir", filepath.Join(dir, "data"),
		"--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--encryption-keys", keys, "--stall-after", "100ms",
		"--webhook", hook.URL)
	addr := p.waitFor(t, `^amends: serving on (\S+) `)[1]
	web := strings.TrimSuffix(p.waitFor(t, `^amends: console on (\S+)$`)[1], "/")
	if _, err := begin(t.Context(), sdk.NewClient(connect(t, addr), &sdk.ClientConfig{Logger: quiet()}), "order-17", false); err != nil {
		t.Fatal(err)
	}
	select {
	case events := <-alerts:
		if e := events[0]; e.GID != "order-17" || e.WaitsFor != "bank" {
			t.Errorf("the webhook hears %+v", e)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no alert within five seconds of the threshold")
	}
	curl(t, web, `curl --get 127.0.0.1:7461/v1/transactions --data-urlencode 'filter=stalled = true'`, `"gid":"order-17"`)
	curl(t, web, `curl 127.0.0.1:7461/v1/transactions/order-17:retryNow --json '{"reason": "bank is back"}'`, `"verbs"`)
	curl(t, web, `curl 127.0.0.1:7461/v1/transactions/order-17/events`, `"actor":"127.0.0.1"`)
	curl(t, web, `curl 127.0.0.1:7461/v1/overview`, `"stallAfter"`)
	curl(t, web, `curl 127.0.0.1:7461/metrics`, "amends_transactions_started_total")
	if out := ok(t, "audit", "verify", "--all", "--addr", addr); !strings.Contains(out, "every link holds") {
		t.Errorf("the audit of a sealed store says %q", out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "data", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), "bank is back") {
			t.Errorf("%s holds an operator's reason in the clear", f)
		}
	}
}

// curl runs a command as the documentation shows it, against this coordinator or relay.
func curl(t *testing.T, web, command, want string) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	web = strings.TrimSuffix(web, "/")
	command = strings.NewReplacer("127.0.0.1:7461", web, "127.0.0.1:7463", web).Replace(command) // the ports that are shown
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command+" --silent --show-error --max-time 30").CombinedOutput()
	if text := strings.ReplaceAll(string(out), `": "`, `":"`); err != nil || !strings.Contains(text, want) {
		t.Error(fmt.Errorf("%s: %v\nprinted %s\nwant %s", command, err, out, want))
	}
}
