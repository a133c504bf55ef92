package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/deploy/servicestest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

// tlsMember is a coordinator of a cluster that talks TLS and asks who calls.
type tlsMember struct {
	*process
	addr, console string
	conn          *grpc.ClientConn
}

// tlsCluster is coordinators on one database, each with a certificate of its own
// by one authority.
type tlsCluster struct {
	*authority
	env   []string
	token string // of somebody who may do everything
	pool  *x509.CertPool
	rnd   *rand.Rand
}

func newTLSCluster(t *testing.T) *tlsCluster {
	t.Helper()
	c := &tlsCluster{authority: newAuthority(t), env: environ("AMENDS_MYSQL_DSN=" + servicestest.MySQL(t)), pool: x509.NewCertPool()}
	c.rnd = rand.New(rand.NewPCG(seed(t), 4))
	c.pool.AddCert(c.cert)
	var entry json.RawMessage
	c.token, entry = newToken(t, "--subject", "olga", "--grant", "service", "--grant", "operator", "--service", "shop")
	file, err := json.Marshal(map[string]any{"tokens": []json.RawMessage{entry}})
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "auth.json", file)
	return c
}

// start starts a member that believes the certificates of an authority.
func (c *tlsCluster) start(t *testing.T, name, believes string) *tlsMember {
	t.Helper()
	c.sign(t, name, false)
	m := &tlsMember{process: startIn(t, c.env, "serve", "--listen", freePort(t, c.rnd), "--http", "127.0.0.1:0", "--name", name, "--lease-ttl", "2s",
		"--auth-file", c.path("auth.json"), "--tls-cert", c.path(name+".crt"), "--tls-key", c.path(name+".key"), "--cluster-ca", believes)}
	m.addr = m.waitFor(t, `^amends: serving on (\S+) `)[1]
	m.console = m.waitFor(t, `^amends: console on (https://\S+/)$`)[1]
	conn, err := grpc.NewClient(m.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: c.pool, MinVersion: tls.VersionTLS13})),
		grpc.WithPerRPCCredentials(sdk.BearerToken(c.token, false)))
	if err != nil {
		t.Fatal(err)
	}
	m.conn = conn
	t.Cleanup(func() { _ = conn.Close() }) // says only that it is closed already
	return m
}

// spread waits until each of so many members has its share.
func (c *tlsCluster) spread(t *testing.T, m *tlsMember, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d members share the shards", n), func() bool {
		resp, err := amendsv1.NewClusterServiceClient(m.conn).GetCluster(t.Context(), &amendsv1.GetClusterRequest{})
		if err != nil || len(resp.GetMembers()) != n {
			return false
		}
		for _, one := range resp.GetMembers() {
			if one.GetShards() < resp.GetShards()/int32(n) {
				return false
			}
		}
		return true
	})
}

func (c *tlsCluster) post(t *testing.T, client *http.Client, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestClusterOverTLS: members that talk TLS forward to each other, what comes to
// their consoles too, in the name of who called. One that believes another
// authority is not answered, and says why.
func TestClusterOverTLS(t *testing.T) {
	c := newTLSCluster(t)
	ca := c.path("ca.crt")
	all := []*tlsMember{c.start(t, "m0", ca), c.start(t, "m1", ca)}
	c.spread(t, all[0], 2)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pool, MinVersion: tls.VersionTLS13}}, Timeout: patience}
	defer client.CloseIdleConnections()
	const n = 16 // all are one member's once in 30,000 times
	for i := range n {
		at := all[i%2]
		gid := fmt.Sprintf("trip-%d", i)
		begin := &amendsv1.BeginTccRequest{Gid: gid, Name: "trip", Timeout: durationpb.New(time.Hour)}
		if _, err := amendsv1.NewTransactionServiceClient(at.conn).BeginTcc(t.Context(), begin); err != nil {
			t.Fatal(err)
		}
		if code, body := c.post(t, client, all[0].console+"v1/transactions/"+gid+":pause", `{"reason":"by the console"}`); code != 200 {
			t.Errorf("a pause of %s by the console of m0: %d %s", gid, code, body)
		}
		if code, body := get(t, client, all[1].console+"v1/transactions/"+gid+"/events", c.token); code != 200 ||
			!strings.Contains(body, `"pause"`) || !strings.Contains(body, "olga") {
			t.Errorf("the events of %s by the console of m1: %d %s", gid, code, body)
		}
	}
	forwarded := regexp.MustCompile(`(?m)^amends_forwarded_requests_total [1-9]`)
	if code, body := get(t, client, all[0].console+"metrics", c.token); code != 200 || !forwarded.MatchString(body) {
		t.Errorf("the metrics of m0 tell of no request that was forwarded: %d", code)
	}

	stranger := c.start(t, "stranger", newAuthority(t).path("ca.crt"))
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	asked := make(chan struct{})
	go func() { // most of these belong to others, and wait for them in vain
		defer close(asked)
		for i := 0; i < n && ctx.Err() == nil; i++ {
			short, cancel := context.WithTimeout(ctx, time.Second)
			_, _ = amendsv1.NewTransactionServiceClient(stranger.conn).AbortTransaction(short, &amendsv1.AbortTransactionRequest{Gid: fmt.Sprintf("trip-%d", i)})
			cancel()
		}
	}()
	stranger.waitFor(t, `another coordinator is not reached.*certificate`)
	stop()
	<-asked
}
