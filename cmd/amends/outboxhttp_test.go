package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// writeMessages puts three messages into the outbox in a SQLite file.
func writeMessages(t *testing.T, file string) *sql.DB {
	t.Helper()
	db, box := openDatabase(t, file), outbox.New(outbox.SQLite, nil)
	err := box.Tx(t.Context(), db, func(tx *sql.Tx) error {
		return box.Write(t.Context(), tx, outbox.Message{Topic: "orders", Key: "order-17", Body: []byte(`{"cents": 500}`)},
			outbox.Message{Topic: "orders", Key: "order-17"}, outbox.Message{Topic: "bills", Key: "b"})
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// TestRelayOverHTTP parks a key and replays a dead letter with curl, and reads
// the figures. Nobody publishes meanwhile: the broker is away.
func TestRelayOverHTTP(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders.db")
	writeMessages(t, file)
	p := start(t, "relay", "--kafka", nobodyListens(t), "--sqlite", file, "--http", "127.0.0.1:0")
	web := p.waitFor(t, `^amends: outbox over HTTP on (\S+)$`)[1]
	for _, c := range []struct{ command, want string }{
		{`curl 127.0.0.1:7463/v1/outbox`, `"messages":"3"`},
		{`curl --get 127.0.0.1:7463/v1/outbox/messages --data-urlencode 'key=order-17'`, `"topic":"orders"`},
		{`curl 127.0.0.1:7463/v1/outbox:parkKey --json '{"key": "order-17", "reason": "ticket 7"}'`, `"messages":"2"`},
		{`curl 127.0.0.1:7463/v1/outbox/deadLetters`, `"number":"2"`},
		{`curl 127.0.0.1:7463/v1/outbox/deadLetters/1`, `"body":"eyJjZW50cyI6IDUwMH0="`},
		{`curl 127.0.0.1:7463/v1/outbox/deadLetters:replay --json '{"numbers": [1], "reason": "the broker is back"}'`, `"OUTBOX_VERB_REPLAY"`},
		{`curl 127.0.0.1:7463/v1/outbox/deadLetters:discard --json '{"topic": "orders", "reason": "too late"}'`, `"messages":"1"`},
		{`curl 127.0.0.1:7463/v1/outbox/acts`, `"reason":"too late"`},
		{`curl 127.0.0.1:7463/metrics`, "\namends_outbox_messages 2\n"},
		{`curl 127.0.0.1:7463/metrics`, "\namends_outbox_dead_letters 0\n"},
		{`curl 127.0.0.1:7463/healthz`, "ok"},
	} {
		curl(t, web, c.command, c.want)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web+"v1/outbox", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("for another site's name it answers %d", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// authFile writes an auth file of these entries.
func authFile(t *testing.T, entries ...json.RawMessage) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"tokens": entries})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// person is somebody with a token, "" for nobody.
type person struct{ name, token string }

// request is one that people send, and how they are answered, by name.
type request struct {
	path, body string
	want       map[string]int
}

func (r request) ask(t *testing.T, client *http.Client, web string, people []person) {
	t.Helper()
	for _, p := range people {
		method, body := http.MethodGet, io.Reader(nil)
		if r.body != "" {
			method, body = http.MethodPost, strings.NewReader(r.body)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, web+r.path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if p.token != "" {
			req.Header.Set("Authorization", "Bearer "+p.token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != r.want[p.name] {
			t.Errorf("%s: %s %s: %d %v, want %d\n%.300s", p.name, method, r.path, resp.StatusCode, err, r.want[p.name], text)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRelayOverTLS asks a relay's HTTP half as several people.
func TestRelayOverTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders.db")
	writeMessages(t, file)
	ca := newAuthority(t)
	ca.sign(t, "server", false)
	viewer, first := newToken(t, "--subject", "v", "--grant", "viewer@shop")
	operator, second := newToken(t, "--subject", "o", "--grant", "operator@shop")
	service, third := newToken(t, "--subject", "s", "--grant", "service@shop")
	other, fourth := newToken(t, "--subject", "x", "--grant", "operator@other")
	p := start(t, "relay", "--kafka", nobodyListens(t), "--sqlite", file, "--http", "127.0.0.1:0", "--namespace", "shop",
		"--auth-file", authFile(t, first, second, third, fourth),
		"--listen-tls-cert", ca.path("server.crt"), "--listen-tls-key", ca.path("server.key"))
	web := p.waitFor(t, `^amends: outbox over HTTP on (https://\S+)$`)[1]
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: patience}
	defer client.CloseIdleConnections()
	people := []person{{"nobody", ""}, {"viewer", viewer}, {"operator", operator}, {"service", service}, {"other", other}}
	for _, r := range []request{
		{"healthz", "", map[string]int{"nobody": 200, "viewer": 200, "operator": 200, "service": 200, "other": 200}},
		{"metrics", "", map[string]int{"nobody": 401, "viewer": 200, "operator": 200, "service": 403, "other": 403}},
		{"v1/outbox", "", map[string]int{"nobody": 401, "viewer": 200, "operator": 200, "service": 403, "other": 403}},
		{"v1/whoami", "", map[string]int{"nobody": 401, "viewer": 200, "operator": 200, "service": 200, "other": 403}},
		{"v1/outbox:parkKey", `{"key":"b","reason":"r"}`,
			map[string]int{"nobody": 401, "viewer": 403, "operator": 200, "service": 403, "other": 403}},
	} {
		r.ask(t, client, web, people)
	}
}

// TestConsoleShowsOutboxes: a coordinator with a login shows a relay that asks
// nobody, and one with an auth file of its own. Nobody gets more than both allow.
func TestConsoleShowsOutboxes(t *testing.T) {
	dir := t.TempDir()
	relay := func(file string, args ...string) (*process, string) {
		file = filepath.Join(dir, file)
		writeMessages(t, file)
		p := start(t, append([]string{"relay", "--kafka", nobodyListens(t), "--sqlite", file, "--listen", "127.0.0.1:0"}, args...)...)
		return p, p.waitFor(t, `^amends: outbox served on (\S+)$`)[1]
	}
	viewer, first := newToken(t, "--subject", "v", "--grant", "viewer")
	operator, second := newToken(t, "--subject", "o", "--grant", "operator")
	all, third := newToken(t, "--subject", "a", "--grant", "viewer@*")
	elsewhere, fourth := newToken(t, "--subject", "x", "--grant", "operator") // known to the relay only
	_, open := relay("open.db")
	strict, own := relay("own.db", "--auth-file", authFile(t, first, fourth))
	broker := nobodyListens(t)
	p := start(t, "serve", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--auth-file", authFile(t, first, second, third), "--outbox", "open="+open, "--outbox", "own="+own,
		"--lifecycle-kafka", broker)
	web := p.waitFor(t, `^amends: console on (\S+)$`)[1]
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	people := []person{{"nobody", ""}, {"viewer", viewer}, {"operator", operator}, {"all", all}, {"elsewhere", elsewhere}}
	const park = `{"key":"b","reason":"r"}`
	for _, r := range []request{
		{"outbox/open/v1/outbox", "", map[string]int{"nobody": 401, "viewer": 200, "operator": 200, "all": 200, "elsewhere": 401}},
		{"outbox/open/v1/outbox:parkKey", park, map[string]int{"nobody": 401, "viewer": 403, "operator": 200, "all": 403, "elsewhere": 401}},
		{"outbox/own/v1/outbox", "", map[string]int{"nobody": 401, "viewer": 200, "operator": 401, "all": 401, "elsewhere": 401}},
		{"outbox/own/v1/outbox:parkKey", park, map[string]int{"nobody": 401, "viewer": 403, "operator": 401, "all": 403, "elsewhere": 401}},
		{"outbox/lifecycle/v1/outbox", "", map[string]int{"nobody": 401, "viewer": 403, "operator": 403, "all": 200, "elsewhere": 401}},
		{"outbox/lifecycle/v1/outbox:parkKey", park, map[string]int{"nobody": 401, "viewer": 403, "operator": 403, "all": 403, "elsewhere": 401}},
		{"outbox/none/v1/outbox", "", map[string]int{"nobody": 404, "viewer": 404, "operator": 404, "all": 404, "elsewhere": 404}},
		{"healthz", "", map[string]int{"nobody": 200, "viewer": 200, "operator": 200, "all": 200, "elsewhere": 200}},
	} {
		r.ask(t, client, web, people)
	}
	if code, page := get(t, client, web+"outbox", ""); code != 200 || !strings.Contains(page, `content="open own lifecycle"`) {
		t.Errorf("the console's page: %d\n%s", code, page)
	}
	if code := strict.stop(t); code != 0 {
		t.Errorf("the relay's exit code is %d", code)
	}
	if code, said := get(t, client, web+"outbox/own/v1/outbox", viewer); code != http.StatusServiceUnavailable || !strings.Contains(said, "connection refused") {
		t.Errorf("of a relay that is away: %d %s", code, said)
	}
	if code, said := get(t, client, web+"metrics", viewer); code != 200 || !strings.Contains(said, "amends_outbox_messages") {
		t.Errorf("the figures lack the coordinator's own outbox: %d %.300s", code, said)
	}
	client.CloseIdleConnections()
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestDevShowsItsOutbox: what becomes of a transaction goes through the outbox
// that the console of `amends dev` shows.
func TestDevShowsItsOutbox(t *testing.T) {
	_, at := dev(t)
	conn := connect(t, at.coordinator)
	openBank(t, conn)
	run, err := begin(t.Context(), sdk.NewClient(conn, nil), "one", false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := run.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	eventually(t, "the events are published", func() bool {
		_, status := get(t, client, at.console+"outbox/lifecycle/v1/outbox", "")
		_, figures := get(t, client, at.console+"metrics", "")
		return strings.Contains(status, `"messages":"0"`) && strings.Contains(figures, "amends_outbox_published_total ") &&
			!strings.Contains(figures, "amends_outbox_published_total 0\n")
	})
}

func TestOutboxFlagsUsage(t *testing.T) {
	const serve, http = "serve --data-dir x ", "--http 127.0.0.1:0 "
	for args, want := range map[string]string{
		serve + http + "--outbox orders":                                                "want NAME=HOST:PORT",
		serve + http + "--outbox a/b=127.0.0.1:1":                                       "want NAME=HOST:PORT",
		serve + http + "--outbox a=7462":                                                "want NAME=HOST:PORT",
		serve + http + "--outbox a=127.0.0.1:1 --outbox a=127.0.0.1:2":                  "another one has this name",
		serve + http + "--outbox lifecycle=127.0.0.1:1":                                 "give another name",
		serve + http + "--outbox a=db:7462":                                             "must not travel in plaintext",
		serve + "--outbox a=127.0.0.1:1":                                                "give --http too",
		serve + http + "--outbox-tls":                                                   "are for --outbox",
		serve + http + "--outbox a=db:1 --outbox-tls-ca /absent --listen 127.0.0.1:0":   "certificate authorities",
		"relay --kafka x:1 --sqlite x --http 0.0.0.0:0":                                 "--http",
		"relay --kafka x:1 --sqlite x --http 7463":                                      "want host:port",
		"relay --kafka x:1 --sqlite x --auth-file a":                                    "give one of these too",
		"relay --kafka x:1 --sqlite x --http :1 --listen-tls-cert a --listen-tls-key b": "not a loopback address",
	} {
		t.Run(args, func(t *testing.T) {
			args := strings.Replace(args, "--data-dir x", "--data-dir "+t.TempDir(), 1)
			if r := amends(t, strings.Fields(args)...); r.code != 2 || !strings.Contains(r.stderr, want) {
				t.Errorf("exit code %d, said %q; want 2 and %q", r.code, r.stderr, want)
			}
		})
	}
}
