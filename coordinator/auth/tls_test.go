package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// authority signs certificates, whose files it leaves in dir.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{dir: dir}
	a.cert, a.key = a.issue(t, name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes name.crt and name.key.
func (a *authority) issue(t *testing.T, name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(48*time.Hour)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, a.dir, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, a.dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) server(t *testing.T, name string) {
	t.Helper()
	a.issue(t, name, &x509.Certificate{DNSNames: []string{"amends.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

func (a *authority) client(t *testing.T, name, spiffe string) {
	t.Helper()
	u, err := url.Parse(spiffe)
	if err != nil {
		t.Fatal(err)
	}
	a.issue(t, name, &x509.Certificate{URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// shake lets a client and a server meet, and returns what each knows of the
// other. The server answers a word, because a client of TLS 1.3 learns only then
// that it was turned away.
func shake(t *testing.T, server, client *tls.Config) (seenByServer, seenByClient tls.ConnectionState, err error) {
	t.Helper()
	client = client.Clone()
	client.ServerName = "amends.test"
	client.NextProtos = []string{"h2"}
	if len(client.Certificates) > 0 { // show it also to whom it means nothing
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client.Certificates[0], nil }
	}
	lis := bufconn.Listen(1 << 16)
	defer lis.Close()
	done := make(chan tls.ConnectionState, 1)
	go func() {
		defer close(done)
		a, err := lis.Accept()
		if err != nil {
			return
		}
		defer a.Close()
		s := tls.Server(a, server)
		if s.Handshake() == nil {
			_, _ = s.Write([]byte{1}) // the client may be gone
		}
		done <- s.ConnectionState()
	}()
	b, err := lis.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(b, client)
	if err = c.Handshake(); err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	b.Close()
	return <-done, c.ConnectionState(), err
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := newAuthority(t, dir, "ours"), newAuthority(t, dir, "theirs")
	ours.server(t, "server")
	ours.client(t, "accounts", "spiffe://example.org/accounts")
	theirs.client(t, "stranger", "spiffe://example.org/accounts")
	server, err := ServerTLS(ours.path("server.crt"), ours.path("server.key"), ours.path("ours.crt"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, ca, cert string
		max            uint16
		subject        string
		want           string // of the error
	}{
		{name: "a client", ca: "ours.crt", cert: "accounts", subject: "accounts"},
		{name: "a client without certificate", ca: "ours.crt"},
		{name: "another's client", ca: "ours.crt", cert: "stranger", want: "certificate"},
		{name: "a client of another server", ca: "theirs.crt", want: "unknown authority"},
		{name: "an old client", ca: "ours.crt", max: tls.VersionTLS12, want: "version"},
	} {
		cert, key := "", ""
		if c.cert != "" {
			cert, key = ours.path(c.cert+".crt"), ours.path(c.cert+".key")
		}
		client, err := ClientTLS(ours.path(c.ca), cert, key)
		if err != nil {
			t.Fatal(err)
		}
		if client.MaxVersion = c.max; c.max != 0 {
			client.MinVersion = c.max
		}
		saw, seen, err := shake(t, server, client)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if err != nil || seen.Version != tls.VersionTLS13 || seen.NegotiatedProtocol != "h2" {
			t.Errorf("%s: %v, version %x, protocol %q", c.name, err, seen.Version, seen.NegotiatedProtocol)
		}
		if subject := ""; len(saw.VerifiedChains) > 0 {
			if subject = saw.VerifiedChains[0][0].Subject.CommonName; subject != c.subject {
				t.Errorf("%s: the server saw %q", c.name, subject)
			}
		} else if c.subject != "" {
			t.Errorf("%s: the server saw nobody", c.name)
		}
	}
}

// TestTLSReload: new files count for the next client, those that do not fit
// together do not, and whoever is no longer trusted stays out, tickets or not.
func TestTLSReload(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := newAuthority(t, dir, "ours"), newAuthority(t, dir, "theirs")
		ours.server(t, "server")
		ours.client(t, "accounts", "spiffe://example.org/accounts")
		write(t, dir, "clients.crt", contentOf(t, ours.path("ours.crt")))
		log := &logged{}
		server, err := ServerTLS(ours.path("server.crt"), ours.path("server.key"), ours.path("clients.crt"), log.logger())
		if err != nil {
			t.Fatal(err)
		}
		client, err := ClientTLS(ours.path("ours.crt"), ours.path("accounts.crt"), ours.path("accounts.key"))
		if err != nil {
			t.Fatal(err)
		}
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		serial := func() *big.Int {
			time.Sleep(reloadEvery)
			_, seen, err := shake(t, server, client)
			if err != nil {
				t.Fatal(err)
			}
			return seen.PeerCertificates[0].SerialNumber
		}
		first := serial()
		if serial().Cmp(first) != 0 {
			t.Error("another certificate without a change")
		}
		key := contentOf(t, ours.path("server.key"))
		ours.server(t, "server")
		next := contentOf(t, ours.path("server.key"))
		write(t, dir, "server.key", key) // half of the change is there
		if serial().Cmp(first) != 0 || !strings.Contains(log.String(), "private key does not match") {
			t.Errorf("a certificate without its key; log: %s", log)
		}
		write(t, dir, "server.key", next)
		if serial().Cmp(first) == 0 {
			t.Error("the old certificate after a change")
		}
		write(t, dir, "clients.crt", contentOf(t, theirs.path("theirs.crt")))
		time.Sleep(reloadEvery)
		if _, _, err := shake(t, server, client); err == nil {
			t.Error("a client whose authority is no longer trusted came in")
		}
	})
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWrongTLSFiles(t *testing.T) {
	dir := t.TempDir()
	ours := newAuthority(t, dir, "ours")
	ours.server(t, "server")
	empty := write(t, dir, "empty", "nothing")
	_, err := ServerTLS(ours.path("server.crt"), ours.path("ours.key"), empty, nil)
	if err == nil || !strings.Contains(err.Error(), "does not match") || !strings.Contains(err.Error(), "no certificate in") {
		t.Errorf("server: %v, want both mistakes", err)
	}
	if _, err = ClientTLS(ours.path("absent"), ours.path("server.crt"), ""); err == nil || strings.Count(err.Error(), "no such file") != 2 {
		t.Errorf("client: %v, want both mistakes", err)
	}
}
