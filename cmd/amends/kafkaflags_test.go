package main_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// TestKafkaLogin logs in to a broker that asks for it, over TLS.
func TestKafkaLogin(t *testing.T) {
	t.Parallel()
	ca, conf := kafkaCertificate(t)
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(conf), kfake.EnableSASL(),
		kfake.Superuser("SCRAM-SHA-256", "olga", "pass-word"), kfake.Superuser("PLAIN", "olga", "pass-word"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := file("pass-word\n"), file("other")
	list := []string{"dead", "list", "--topic", "orders", "--timeout", "20s", "--kafka", k.ListenAddrs()[0]}
	for _, tc := range []struct {
		flags string
		code  int
		want  string
	}{
		{"--kafka-ca " + ca + " --kafka-sasl scram-sha-256 --kafka-user olga --kafka-password-file " + good, 0, "PLACE"},
		{"--kafka-ca " + ca + " --kafka-sasl plain --kafka-user olga --kafka-password-file " + good, 0, "PLACE"},
		{"--kafka-ca " + ca + " --kafka-sasl scram-sha-256 --kafka-user olga --kafka-password-file " + bad, 1, ""},
		{"--kafka-tls --kafka-sasl scram-sha-256 --kafka-user olga --kafka-password-file " + good, 1, "certificate"},
		{"--kafka-sasl scram-sha-256 --kafka-user olga", 2, "AMENDS_KAFKA_PASSWORD"},
		{"--kafka-sasl scram-sha-1 --kafka-user olga", 2, "give plain, scram-sha-256, scram-sha-512"},
		{"--kafka-sasl plain", 2, "--kafka-user"},
		{"--kafka-user olga", 2, "--kafka-sasl"},
		{"--kafka-cert " + ca, 2, "--kafka-key"},
		{"--kafka-ca " + good, 2, "no certificate"},
	} {
		r := amends(t, append(slices.Clip(list), strings.Fields(tc.flags)...)...)
		if out := r.stdout + r.stderr; r.code != tc.code || !strings.Contains(out, tc.want) || strings.Contains(out, "pass-word") {
			t.Errorf("%s: exit code %d, want %d with %q\n%s", tc.flags, r.code, tc.code, tc.want, out)
		}
	}
	r := amends(t, "dead", "list", "--topic", "orders", "--kafka", "kafka-1:9092", "--kafka-sasl", "plain", "--kafka-user", "olga")
	if r.code != 2 || !strings.Contains(r.stderr, "readable") {
		t.Errorf("a password in plaintext: %d, %s", r.code, r.stderr)
	}
}

// kafkaCertificate is a certificate of 127.0.0.1, and the file of whoever signed it.
func kafkaCertificate(t *testing.T) (ca string, conf *tls.Config) {
	t.Helper()
	a := newAuthority(t)
	a.sign(t, "kafka", false)
	cert, err := tls.LoadX509KeyPair(a.path("kafka.crt"), a.path("kafka.key"))
	if err != nil {
		t.Fatal(err)
	}
	return a.path("ca.crt"), &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
}
