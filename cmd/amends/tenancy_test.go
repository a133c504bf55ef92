package main_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

// tenants is a coordinator with an auth file, and who may call it.
type tenants struct {
	addr, console, file string
	tokens              map[string]string
	entries             []json.RawMessage
}

// write writes the auth file with these rules.
func (n *tenants) write(t *testing.T, rules string) {
	t.Helper()
	entries, err := json.Marshal(n.entries)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.file, fmt.Appendf(nil, `{"tokens": %s, %s}`, entries, rules), 0o600); err != nil {
		t.Fatal(err)
	}
}

func serveTenants(t *testing.T, rules string, args ...string) (*tenants, *process) {
	t.Helper()
	n := &tenants{file: filepath.Join(t.TempDir(), "auth.json"), tokens: map[string]string{}}
	for who, grant := range map[string]string{"vera": "viewer@*", "olga": "operator@*", "bob": "break-glass@*", "robot": "service@*"} {
		token, entry := newToken(t, "--subject", who, "--grant", grant)
		n.tokens[who], n.entries = token, append(n.entries, entry)
	}
	n.write(t, rules)
	p := start(t, append([]string{"serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--auth-file", n.file}, args...)...)
	n.addr = p.waitFor(t, `^amends: serving on (\S+) `)[1]
	n.console = p.waitFor(t, `^amends: console on (http://\S+/)$`)[1]
	return n, p
}

// startIn starts a saga whose service is away.
func (n *tenants) startIn(t *testing.T, namespace, gid string) error {
	t.Helper()
	conn, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(sdk.BearerToken(n.tokens["robot"], true)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), amendsv1.NamespaceHeader, namespace)
	_, err = amendsv1.NewTransactionServiceClient(conn).StartSaga(ctx, &amendsv1.StartSagaRequest{Gid: gid, Name: "pay",
		Steps: []*amendsv1.SagaStep{{Name: "charge", Action: "bank.charge", Payload: []byte(`{"card":{"number":"4111-1111"},"cents":42}`)}}})
	return amendsv1.FromError(err)
}

// TestPayloadsByRole: the command line and HTTP show what the auth file says,
// whoever asks, and what break-glass alone was shown is in the log.
func TestPayloadsByRole(t *testing.T) {
	n, p := serveTenants(t, `"payloads": {"redact": ["card.number"]}`)
	if err := n.startIn(t, "shop", "order-1"); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	for who, want := range map[string]string{
		"vera": `"[redacted]"`, "olga": `{"card":{"number":"[redacted]"},"cents":42}`, "bob": `{"card":{"number":"4111-1111"},"cents":42}`,
	} {
		r := amendsIn(t, environ("AMENDS_TOKEN="+n.tokens[who]), "tx", "get", "order-1", "--full", "-o", "json", "--namespace", "shop", "--addr", n.addr)
		if encoded := base64.StdEncoding.EncodeToString([]byte(want)); r.code != 0 || !strings.Contains(r.stdout, `"`+encoded+`"`) {
			t.Errorf("%s: exit code %d, %s%s, want %s", who, r.code, r.stdout, r.stderr, want)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.console+"v1/transactions/order-1?view=TRANSACTION_VIEW_FULL", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+n.tokens[who])
		req.Header.Set("Amends-Namespace", "shop")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Transaction struct{ Branches []struct{ Request []byte } }
		}
		err = json.NewDecoder(resp.Body).Decode(&got)
		resp.Body.Close()
		if err != nil || len(got.Transaction.Branches) != 1 || string(got.Transaction.Branches[0].Request) != want {
			t.Errorf("%s over HTTP: %v %+v, want %s", who, err, got, want)
		}
		export := amendsIn(t, environ("AMENDS_TOKEN="+n.tokens[who]), "audit", "export", "--namespace", "shop", "--addr", n.addr)
		if export.code != 0 || !strings.Contains(export.stdout, "order-1") || strings.Contains(export.stdout, "4111-1111") {
			t.Errorf("%s exports: exit code %d\n%s%s", who, export.code, export.stdout, export.stderr)
		}
	}
	p.waitFor(t, `break-glass was shown payloads.*subject=bob.*order-1`)
	if said := p.everything(); strings.Contains(said, "4111-1111") || strings.Contains(said, "subject=olga") {
		t.Errorf("the log shows too much:\n%s", said)
	}
}

// TestQuota: a namespace at its quota is refused, another one is not, an undo is
// not; the metrics say so; and a changed file counts without a restart.
func TestQuota(t *testing.T) {
	n, _ := serveTenants(t, `"quotas": {"shop": {"live": 2}}`)
	for i := range 2 {
		if err := n.startIn(t, "shop", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var over *amendsv1.Error
	if err := n.startIn(t, "shop", "2"); !errors.Is(err, sdk.ErrOverloaded) || !errors.As(err, &over) || over.RetryAfter <= 0 ||
		over.Metadata["namespace"] != "shop" || over.Metadata["quota"] != "live" || over.Metadata["limit"] != "2" {
		t.Errorf("over the quota: %v %+v", err, over)
	}
	if err := n.startIn(t, "bank", "2"); err != nil {
		t.Errorf("in another namespace: %v", err)
	}
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	_, figures := get(t, client, n.console+"metrics", n.tokens["vera"])
	for _, want := range []string{
		`amends_namespace_live_transactions{namespace="shop"} 2`, `amends_namespace_live_transactions_quota{namespace="shop"} 2`,
		`amends_namespace_starts_refused_total{namespace="shop"} 1`, `amends_starts_refused_total{reason="quota"} 1`,
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	r := amendsIn(t, environ("AMENDS_TOKEN="+n.tokens["olga"]), "tx", "abort", "0", "--reason", "r", "--namespace", "shop", "--addr", n.addr)
	if r.code != 0 {
		t.Errorf("an undo at the quota: %s", r.stderr)
	}
	n.write(t, `"quotas": {"shop": {"live": 50}}`)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := n.startIn(t, "shop", "3")
		if err == nil {
			return
		}
		if !errors.Is(err, sdk.ErrOverloaded) || time.Now().After(deadline) {
			t.Fatalf("after the file has changed: %v", err)
		}
	}
}

// TestKeysRotate: a key is retired while the coordinator runs.
func TestKeysRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	key := func(id string) string {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		return fmt.Sprintf(`{"id": %q, "key": %q}`, id, base64.StdEncoding.EncodeToString(secret))
	}
	write := func(keys ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(`{"keys": [`+strings.Join(keys, ", ")+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, two := key("2026-10"), key("2026-11")
	write(one)
	n, p := serveTenants(t, `"payloads": {}`, "--encryption-keys", path)
	if err := n.startIn(t, "", "order-1"); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, `everything is sealed with the first key.*key=2026-10`)
	write(two, one)
	p.waitFor(t, `everything is sealed with the first key.*key=2026-11`)
	write(two)
	p.waitFor(t, `keys read again.*keys=\[2026-11\]`)
	r := amendsIn(t, environ("AMENDS_TOKEN="+n.tokens["olga"]), "tx", "get", "order-1", "--full", "--addr", n.addr)
	if r.code != 0 || !strings.Contains(r.stdout, "4111-1111") {
		t.Errorf("without the old key: exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}
	r = amendsIn(t, environ("AMENDS_TOKEN="+n.tokens["olga"]), "audit", "verify", "--all", "--addr", n.addr)
	if r.code != 0 {
		t.Errorf("the trail: %s%s", r.stdout, r.stderr)
	}
}

// TestConsoleByCertificate: a client's certificate counts over HTTPS.
func TestConsoleByCertificate(t *testing.T) {
	s := serveSecured(t)
	pool := x509.NewCertPool()
	pool.AddCert(s.cert)
	robot, err := tls.LoadX509KeyPair(s.path("robot.crt"), s.path("robot.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"v1/transactions", "metrics"} {
		for code, certs := range map[int][]tls.Certificate{200: {robot}, 401: nil} {
			client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}}}
			if got, body := get(t, client, s.console+path, ""); got != code {
				t.Errorf("GET /%s with %d certificates: %d, want %d\n%.300s", path, len(certs), got, code, body)
			}
			client.CloseIdleConnections()
		}
	}
}
