package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates of a test's own, and keeps all in dir.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", true)
	return a
}

// sign writes NAME.crt and NAME.key.
func (a *authority) sign(t *testing.T, name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(a.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// secured is a coordinator with TLS and login.
type secured struct {
	*authority
	addr, console, viewer, operator string
}

// newToken runs `amends token new` and returns the token and its entry.
func newToken(t *testing.T, args ...string) (token string, entry json.RawMessage) {
	t.Helper()
	var made struct {
		Token string
		Entry json.RawMessage
	}
	if err := json.Unmarshal([]byte(ok(t, append([]string{"token", "new", "-o", "json"}, args...)...)), &made); err != nil {
		t.Fatal(err)
	}
	return made.Token, made.Entry
}

func serveSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{authority: newAuthority(t)}
	s.sign(t, "server", false)
	s.sign(t, "robot", false)
	var entries [2]json.RawMessage
	s.viewer, entries[0] = newToken(t, "--subject", "vera", "--grant", "viewer")
	s.operator, entries[1] = newToken(t, "--subject", "olga", "--grant", "operator", "--grant", "viewer@*", "--ttl", "1h")
	file, err := json.Marshal(map[string]any{
		"tokens":       entries,
		"certificates": []map[string]any{{"cn": "robot", "subject": "robot", "grants": []string{"viewer"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "auth.json", file)
	p := start(t, "serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--auth-file", s.path("auth.json"),
		"--tls-cert", s.path("server.crt"), "--tls-key", s.path("server.key"), "--client-ca", s.path("ca.crt"))
	s.addr = p.waitFor(t, `^amends: serving on (\S+) `)[1]
	s.console = p.waitFor(t, `^amends: console on (https://\S+/)$`)[1]
	t.Cleanup(func() {
		if said := p.everything(); strings.Contains(said, s.viewer) || strings.Contains(said, s.operator) {
			t.Error("a token is in the log")
		}
	})
	return s
}

// TestLogin talks to a coordinator with TLS and login in every way there is.
func TestLogin(t *testing.T) {
	s := serveSecured(t)
	s.write(t, "viewer.token", []byte(s.viewer+"\n"))
	for _, c := range []struct {
		name, env, args string
		code            int
		want            string // on standard output if code is 0, else on standard error
	}{
		{"token in the environment", s.operator, "cluster whoami", 0, "olga"},
		{"token in a file", "", "cluster whoami --token-file " + s.path("viewer.token"), 0, "vera"},
		{"a flag beats the environment", s.operator, "cluster whoami --token " + s.viewer, 0, "vera"},
		{"certificate", "", "cluster whoami --tls-cert " + s.path("robot.crt") + " --tls-key " + s.path("robot.key"), 0, "robot"},
		{"namespace", s.operator, "cluster whoami --namespace shop", 0, "shop"},
		{"verify", s.viewer, "audit verify --all", 0, "0 transactions"},
		{"nobody", "", "tx list", 1, "set AMENDS_TOKEN"},
		{"unknown token", "amends_unknown", "tx list", 1, "UNAUTHENTICATED"},
		{"a role that may not act", s.viewer, "tx pause g --reason r", 1, "PERMISSION_DENIED: vera: OperatorService.Pause needs the role operator"},
		{"a namespace that it may not see", s.viewer, "tx list --namespace shop", 1, "PERMISSION_DENIED"},
		{"a token with a space", "two words", "tx list", 2, "AMENDS_TOKEN holds what cannot be a token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append(strings.Fields(c.args), "--addr", s.addr, "--tls-ca", s.path("ca.crt"))
			r := amendsIn(t, environ("AMENDS_TOKEN="+c.env), args...)
			said := map[bool]string{true: r.stdout, false: r.stderr}[c.code == 0]
			if r.code != c.code || !strings.Contains(said, c.want) {
				t.Errorf("exit code %d, said %q, printed %q; want %d and %q", r.code, r.stderr, r.stdout, c.code, c.want)
			}
			if c.env != "" && strings.Contains(r.stderr+r.stdout, c.env) {
				t.Error("shows the token")
			}
		})
	}
	r := amends(t, "tx", "list", "--addr", s.addr)
	if r.code != 1 || !strings.Contains(r.stderr, "--tls") {
		t.Errorf("in plaintext: exit code %d, said %q; want a hint at --tls", r.code, r.stderr)
	}
	r = amends(t, "tx", "list", "--addr", s.addr, "--tls")
	if r.code != 1 || !strings.Contains(r.stderr, "--tls-ca") {
		t.Errorf("with the system's authorities: exit code %d, said %q; want a hint at --tls-ca", r.code, r.stderr)
	}
}

// TestConsoleOverTLS asks the HTTP half with and without a token.
func TestConsoleOverTLS(t *testing.T) {
	s := serveSecured(t)
	pool := x509.NewCertPool()
	pool.AddCert(s.cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: patience}
	defer client.CloseIdleConnections()
	for _, c := range []struct {
		path, token string
		code        int
		want        string
	}{
		{"", "", 200, "<html"},
		{"v1/transactions", "", 401, "UNAUTHENTICATED"},
		{"v1/transactions", s.viewer, 200, `"transactions"`},
		{"v1/openapi.json", "", 200, "amends"},
	} {
		if code, body := get(t, client, s.console+c.path, c.token); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("GET /%s: %d, want %d and %q in\n%.300s", c.path, code, c.code, c.want, body)
		}
	}
}

func get(t *testing.T, client *http.Client, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestDevServesTheConsole asks the console that `amends dev` names, by an address
// and by a name that another site may have pointed at this machine.
func TestDevServesTheConsole(t *testing.T) {
	p, at := dev(t)
	client := &http.Client{Timeout: patience}
	if code, body := get(t, client, at.console, ""); code != 200 || !strings.Contains(body, "<html") {
		t.Errorf("the console answers %d:\n%.300s", code, body)
	}
	if code, body := get(t, client, at.console+"v1/transactions", ""); code != 200 {
		t.Errorf("the API answers %d: %s", code, body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.console+"v1/transactions", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("for another site's name it answers %d", resp.StatusCode)
	}
	client.CloseIdleConnections()
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestTokenGoesAlong checks what travels with a request.
func TestTokenGoesAlong(t *testing.T) {
	f := &fake{}
	addr := f.start(t)
	r := amendsIn(t, environ("AMENDS_TOKEN= secret-1 "), "cluster", "overview", "--namespace", "shop", "--addr", addr)
	if got := fmt.Sprint(f.header("authorization"), f.header("amends-namespace")); r.code != 0 || got != "[Bearer secret-1][shop]" {
		t.Errorf("exit code %d, headers %s; said %q", r.code, got, r.stderr)
	}
	ok(t, "cluster", "overview", "--addr", addr)
	if got := fmt.Sprint(f.header("authorization"), f.header("amends-namespace")); got != "[][]" {
		t.Errorf("headers %s, want none", got)
	}
}

func TestTokenNew(t *testing.T) {
	out := ok(t, "token", "new", "--subject", "accounts", "--grant", "service@shop", "--service", "accounts")
	if !strings.HasPrefix(out, "Token, shown this once:\namends_") ||
		!strings.Contains(out, "\n"+`{"subject":"accounts","grants":["service@shop"],"services":["accounts"],"sha256":"`) {
		t.Errorf("printed\n%s", out)
	}
}
