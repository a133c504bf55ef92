package main

import (
	"context"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/amends-dev/amends/coordinator/auth"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// tokenEnv is the token of a command when no flag gives one.
const tokenEnv = "AMENDS_TOKEN"

// maxToken bounds a file with a token, in bytes.
const maxToken = 64 << 10

// maxMessage is the largest answer: a transaction with every payload.
const maxMessage = 64 << 20

// login is where a coordinator is, and who asks it.
type login struct {
	addr, namespace  string
	token, tokenFile string
	tls              bool
	ca, cert, key    string
	insecure         bool
	given            func(flag string) bool
}

// flags adds all but the one that names the address.
func (l *login) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	l.given = f.Changed
	f.StringVar(&l.namespace, "namespace", "", "namespace of the coordinator (empty: the default one, or the token's only one)")
	f.StringVar(&l.token, "token", "", "token for the coordinator; the list of processes shows it, so better set "+tokenEnv)
	f.StringVar(&l.tokenFile, "token-file", "", "`file` that holds the token")
	f.BoolVar(&l.tls, "tls", false, "talk TLS to the coordinator, trusting the system's authorities; the other --tls flags imply it")
	f.StringVar(&l.ca, "tls-ca", "", "talk TLS, trusting the authorities in this PEM `file`")
	f.StringVar(&l.cert, "tls-cert", "", "show the client certificate in this PEM `file`")
	f.StringVar(&l.key, "tls-key", "", "its key, a PEM `file`")
	f.BoolVar(&l.insecure, "insecure", false, "send a token beyond loopback without TLS, readable by whoever is on the way")
}

// encrypted reports whether the connection is TLS.
func (l *login) encrypted() bool { return l.tls || l.ca != "" || l.cert != "" || l.key != "" }

// known reports whether the request says who asks.
func (l *login) known() bool {
	return l.given("token") || l.given("token-file") || os.Getenv(tokenEnv) != "" || l.cert != ""
}

// dial makes a connection; an address that nobody listens on shows at the
// first request.
func (l *login) dial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	how, err := l.dialOptions()
	if err != nil {
		return nil, err
	}
	opts = append(opts, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	conn, err := grpc.NewClient(l.addr, append(opts, how...)...)
	if err != nil {
		return nil, usagef("address %q: %w", l.addr, err)
	}
	return conn, nil
}

// dialOptions are how to talk to the coordinator. Errors never show a token.
func (l *login) dialOptions() ([]grpc.DialOption, error) {
	token, err := l.bearer()
	if err != nil {
		return nil, err
	}
	if (l.cert == "") != (l.key == "") {
		return nil, usagef("--tls-cert and --tls-key belong together: give both")
	}
	transport := insecure.NewCredentials()
	switch {
	case l.encrypted():
		cfg, err := auth.ClientTLS(l.ca, l.cert, l.key)
		if err != nil {
			return nil, &usageError{err}
		}
		transport = credentials.NewTLS(cfg)
	case token != "" && !l.insecure && !local(l.addr):
		return nil, usagef("%s is not on this machine, and a token must not travel in plaintext: "+
			"give --tls or --tls-ca (or --insecure, to send it readable by whoever is on the way)", l.addr)
	}
	said := headers{}
	if token != "" {
		said["authorization"] = "Bearer " + token
	}
	if l.namespace != "" {
		said[amendsv1.NamespaceHeader] = l.namespace
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(transport), grpc.WithPerRPCCredentials(said)}, nil
}

// bearer is the token, from wherever it was given.
func (l *login) bearer() (string, error) {
	token, from := l.token, "--token"
	switch {
	case l.given("token") && l.given("token-file"):
		return "", usagef("--token and --token-file exclude each other: give one of them")
	case l.given("token-file"):
		from = "--token-file " + l.tokenFile
		data, err := readFile(l.tokenFile, maxToken)
		if err != nil {
			return "", usagef("--token-file: %w", err)
		}
		token = strings.TrimSpace(string(data))
	case !l.given("token"):
		token, from = strings.TrimSpace(os.Getenv(tokenEnv)), tokenEnv
		if token == "" {
			return "", nil
		}
	}
	if token == "" {
		return "", usagef("%s holds no token", from)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usagef("%s holds what cannot be a token: want letters, digits and signs, without spaces", from)
	}
	return token, nil
}

// local reports whether an address is on this machine for sure.
func local(addr string) bool {
	addr = strings.TrimPrefix(strings.TrimPrefix(addr, "passthrough:///"), "dns:///")
	if strings.HasPrefix(addr, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(addr)
	return err == nil && loopback(host)
}

// headers go along with each request.
type headers map[string]string

// GetRequestMetadata returns them.
func (h headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return h, nil
}

// RequireTransportSecurity is false: dialOptions has judged already.
func (h headers) RequireTransportSecurity() bool { return false }
