package coordinator_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// certificateHeader is what a certificate travels in, inside of the process.
const certificateHeader = "amends-client-certificate-bin"

// TestCertificateThroughGateway: a client's certificate counts over HTTPS as it
// does over gRPC, and nothing but a handshake makes one.
func TestCertificateThroughGateway(t *testing.T) {
	g := newGuarded(t)
	path := func(name string) string { return filepath.Join(g.dir, name) }
	cluster := amendsv1.NewClusterServiceClient(g.GuardedConn())
	// The most careless gateway there can be: every header goes along.
	srv := httptest.NewUnstartedServer(auth.ClientCertificates(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		for name, values := range r.Header {
			if name = strings.ToLower(name); name == "authorization" || strings.HasPrefix(name, "amends-") {
				if strings.HasSuffix(name, "-bin") {
					raw, err := base64.StdEncoding.DecodeString(values[0])
					if err != nil {
						t.Error(err)
					}
					values = []string{string(raw)}
				}
				ctx = metadata.AppendToOutgoingContext(ctx, name, values[0]) //nolint:fatcontext // a few headers
			}
		}
		who, err := cluster.WhoAmI(ctx, &amendsv1.WhoAmIRequest{})
		fmt.Fprint(w, status.Code(err), " ", who.GetSubject())
	})))
	srv.TLS = must(auth.ServerTLS(path("server.crt"), path("server.key"), path("ca.crt"), quiet))(t)
	srv.StartTLS()
	defer srv.Close()

	block, _ := pem.Decode(must(os.ReadFile(path("shelf.crt")))(t))
	forged := base64.StdEncoding.EncodeToString(block.Bytes)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(path("ca.crt")))(t))
	shelf := must(tls.LoadX509KeyPair(path("shelf.crt"), path("shelf.key")))(t)
	own := t.TempDir()
	certificates(t, own) // of an authority that nobody trusts
	stranger := must(tls.LoadX509KeyPair(filepath.Join(own, "shelf.crt"), filepath.Join(own, "shelf.key")))(t)
	for _, c := range []struct {
		name    string
		certs   []tls.Certificate
		headers map[string]string
		want    string // empty: no answer at all
	}{
		{"certificate", []tls.Certificate{shelf}, nil, "OK shelf"},
		{"neither", nil, nil, "Unauthenticated "},
		{"token", nil, map[string]string{"Authorization": "Bearer " + g.viewer}, "OK ann"},
		{"token and certificate", []tls.Certificate{shelf}, map[string]string{"Authorization": "Bearer " + g.viewer}, "OK ann"},
		{"wrong token and certificate", []tls.Certificate{shelf}, map[string]string{"Authorization": "Bearer amends_x"}, "Unauthenticated "},
		{"forged header", nil, map[string]string{certificateHeader: forged}, "Unauthenticated "},
		{"forged header and certificate", []tls.Certificate{shelf}, map[string]string{certificateHeader: base64.StdEncoding.EncodeToString([]byte("x"))}, "OK shelf"},
		{"another authority's", []tls.Certificate{stranger}, nil, ""},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, GetClientCertificate: always(c.certs)}}}
		req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil))(t)
		for name, value := range c.headers {
			req.Header.Set(name, value)
		}
		got := ""
		if resp, err := client.Do(req); err == nil {
			got = string(must(io.ReadAll(resp.Body))(t))
			resp.Body.Close()
		}
		client.CloseIdleConnections()
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}

	// Nor does anybody listen to the header from outside.
	conn := must(grpc.NewClient(g.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool}))))(t)
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), certificateHeader, string(block.Bytes))
	if _, err := amendsv1.NewClusterServiceClient(conn).WhoAmI(ctx, &amendsv1.WhoAmIRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("over the network: %v", err)
	}
}

// always shows a certificate, whatever authorities the server names.
func always(certs []tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certs) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certs[0], nil
	}
}
