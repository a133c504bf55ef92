package rabbitmq

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/deploy/services"
	"github.com/amends-dev/amends/outbox"
)

// secure is a listener for TLS of a broker to be.
type secure struct {
	addr  string
	roots *x509.CertPool
	lines []string // of rabbitmq.conf
}

// newSecure makes a certificate for 127.0.0.1 that is its own authority.
func newSecure(t *testing.T) *secure {
	t.Helper()
	port, err := services.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rabbit"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(os.WriteFile(certFile, cert, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	s := &secure{addr: fmt.Sprintf("127.0.0.1:%d", port), roots: x509.NewCertPool()}
	s.roots.AppendCertsFromPEM(cert)
	s.lines = []string{
		"listeners.ssl.1 = " + s.addr, "ssl_options.cacertfile = " + certFile,
		"ssl_options.certfile = " + certFile, "ssl_options.keyfile = " + keyFile,
	}
	return s
}

// testTLS: the broker's certificate is checked, by the roots that are given.
func testTLS(t *testing.T, b *testBroker, s *secure) {
	topic := b.topic(t)
	plain := strings.TrimPrefix(b.url, "amqp://")
	login, _, _ := strings.Cut(plain, "@")
	encrypted := &testBroker{url: "amqps://" + login + "@" + s.addr + "/", exchange: b.exchange}
	conf := &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}
	publishAll(t, encrypted.publisher(t, Config{TLS: conf}), letters(topic, "ab", "k"))
	if got := b.ids(t, topic); got != "ab" {
		t.Errorf("the queue held %q, want ab", got)
	}
	errs := encrypted.publisher(t, Config{}).Publish(t.Context(), letters(topic, "c", "k"))
	var unknown x509.UnknownAuthorityError
	if len(errs) != 1 || !errors.As(errs[0], &unknown) || errors.Is(errs[0], outbox.ErrPoison) {
		t.Errorf("a certificate of nobody's: %v", errs)
	}
	if conf.ServerName != "" {
		t.Error("the caller's tls.Config was changed")
	}
}

// TestLogin: a wrong password is told, without being repeated.
func TestLogin(t *testing.T) {
	b := sharedBroker(t)
	_, host, _ := strings.Cut(b.url, "@")
	wrong := &testBroker{url: "amqp://amends:no-secret@" + host, exchange: b.exchange}
	errs := wrong.publisher(t, Config{}).Publish(t.Context(), letters("orders", "a", ""))
	if len(errs) != 1 || errors.Is(errs[0], outbox.ErrPoison) || !strings.Contains(errs[0].Error(), "password") ||
		strings.Contains(errs[0].Error(), "no-secret") {
		t.Errorf("a wrong password: %v", errs)
	}
}
