package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// TestKafkaLogin logs in to a broker that asks for it, over TLS.
func TestKafkaLogin(t *testing.T) {
	t.Parallel()
	broker, ca := startGuarded(t)
	good, bad := passwordFile(t, "pass-word\n"), passwordFile(t, "other")
	list := []string{"dead", "list", "--topic", "orders", "--timeout", "20s", "--kafka", broker}
	for _, tc := range []struct {
		flags string
		code  int
		want  string
	}{
		{"--kafka-ca " + ca + " --kafka-sasl scram-sha-256 --kafka-user olga --kafka-password-file " + good, 0, "PLACE"},
		{"--kafka-ca " + ca + " --kafka-sasl plain --kafka-user olga --kafka-password-file " + good, 0, "PLACE"},
		{"--kafka-ca " + ca + " --kafka-sasl scram-sha-256 --kafka-user olga --kafka-password-file " + bad, 1, "--kafka-password-file"},
		{"--kafka-tls --kafka-sasl scram-sha-256 --kafka-user olga --kafka-password-file " + good, 1, "give --kafka-ca"},
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

// TestKafkaLoginOfRelayAndServe starts a saga through a broker that asks for a login, and
// hears from there how it ended. A login that is refused ends each of them, with its flag.
func TestKafkaLoginOfRelayAndServe(t *testing.T) {
	t.Parallel()
	broker, ca := startGuarded(t)
	login := func(password string) []string {
		return []string{"--kafka-ca", ca, "--kafka-sasl", "scram-sha-512", "--kafka-user", "olga", "--kafka-password-file", passwordFile(t, password)}
	}
	file := filepath.Join(t.TempDir(), "orders.db")
	db := openDatabase(t, file)
	relay := []string{"relay", "--sqlite", file, "--kafka", broker, "--create-topics", "--starts-over-kafka"}
	serve := []string{"serve", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--lifecycle-kafka", broker, "--lifecycle-topic", "life"}
	wrong := func(code int, want string, args ...string) {
		t.Helper()
		if r := amends(t, args...); r.code != code || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, "wr0ng-one") {
			t.Errorf("%v: exit code %d, want %d with %q\n%s", args, r.code, code, want, r.stderr)
		}
	}
	wrong(1, "--kafka-password-file", append(slices.Clip(relay), login("wr0ng-one")...)...)
	wrong(1, "--kafka-password-file", append(slices.Clip(serve), login("wr0ng-one")...)...)
	wrong(1, "--intake-kafka: the brokers' certificate", "serve", "--data-dir", t.TempDir(), "--intake-kafka", broker, "--kafka-tls")
	wrong(2, "and there are none", "relay", "--sqlite", file, "--coordinator", "127.0.0.1:1", "--kafka-tls")
	wrong(2, "--lifecycle-topic", append(slices.Clip(serve), "--lifecycle-topic", "a b")...)
	wrong(2, "--intake-topic", append(slices.Clip(serve), "--intake-kafka", broker, "--intake-topic", "a/b")...)

	addr := start(t, append(append(slices.Clip(serve), "--intake-kafka", broker), login("pass-word")...)...).
		waitFor(t, `^amends: serving on (\S+) `)[1]
	start(t, append(slices.Clip(relay), login("pass-word")...)...).waitFor(t, `^amends: relaying `)
	conn := connect(t, addr)
	openBank(t, conn)
	box := outbox.New(outbox.SQLite, nil)
	err := box.Tx(t.Context(), db, func(tx *sql.Tx) error {
		_, err := sdk.StartTx(t.Context(), box, tx, pay, payment{ID: "a"}, &sdk.StartConfig{GID: "a"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the saga is known", func() bool { return known(t.Context(), conn, "a") })
	wantTold(t, broker, ca, "a")
}

// wantTold waits until the topic life has an event of a transaction.
func wantTold(t *testing.T, broker, ca, gid string) {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	dialer := &kafka.Dialer{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		SASLMechanism: plain.Mechanism{Username: "olga", Password: "pass-word"}}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{broker}, Topic: "life", Dialer: dialer, MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if m, err := reader.ReadMessage(ctx); err != nil || string(m.Key) != gid {
		t.Errorf("read %q, %v; want what became of %s", m.Key, err, gid)
	}
}

// startGuarded runs a broker that talks TLS, and to olga alone; ca is the file of whom to trust.
func startGuarded(t *testing.T) (addr, ca string) {
	t.Helper()
	ca, conf := kafkaCertificate(t)
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(conf), kfake.EnableSASL(), kfake.SeedTopics(1, "life"),
		kfake.Superuser("SCRAM-SHA-256", "olga", "pass-word"), kfake.Superuser("SCRAM-SHA-512", "olga", "pass-word"),
		kfake.Superuser("PLAIN", "olga", "pass-word"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k.ListenAddrs()[0], ca
}

func passwordFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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
