package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator/auth"
)

// access is who may reach a coordinator, and how. Its zero value is nobody but
// this machine, in plaintext, and everybody on it may do everything.
type access struct {
	authFile                  string
	tlsCert, tlsKey, clientCA string
	clusterCA                 string
	insecure                  bool
	file                      *auth.File
	guard                     *auth.Guard // nil: nobody is asked
	grpcTLS, httpTLS          *tls.Config // nil: plaintext
	clusterTLS                *tls.Config // nil: plaintext
}

func (a *access) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.authFile, "auth-file", "", "ask who calls: tokens, certificates and issuers of JWTs in this JSON `file`")
	f.StringVar(&a.tlsCert, "tls-cert", "", "talk TLS, with the certificate chain in this PEM `file`")
	f.StringVar(&a.tlsKey, "tls-key", "", "its key, a PEM `file`")
	f.StringVar(&a.clientCA, "client-ca", "", "take client certificates signed by an authority in this PEM `file`")
	f.StringVar(&a.clusterCA, "cluster-ca", "",
		"believe other coordinators whose certificates are signed by an authority in this PEM `file` (default: the system's, and --tls-cert's)")
	f.BoolVar(&a.insecure, "insecure", false, "listen beyond loopback without TLS or login")
}

// check finds mistakes in the flags.
func (a *access) check() error {
	switch {
	case (a.tlsCert == "") != (a.tlsKey == ""):
		return usagef("--tls-cert and --tls-key belong together: give both")
	case a.clientCA != "" && a.tlsCert == "":
		return usagef("--client-ca is for TLS: give --tls-cert and --tls-key too")
	case a.clusterCA != "" && a.tlsCert == "":
		return usagef("--cluster-ca is for TLS: give --tls-cert and --tls-key too")
	case a.clientCA != "" && a.authFile == "":
		return usagef("--client-ca says which certificates to believe, not what they may do: give --auth-file too")
	}
	return nil
}

// checkListen refuses an address that others can reach, unless they are asked
// who they are and nobody on the way can read along.
func (a *access) checkListen(flag, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("%s %q: want host:port, for example %s", flag, addr, defaultAddr)
	}
	if a.insecure || loopback(host) || a.tlsCert != "" && a.authFile != "" {
		return nil
	}
	return usagef("%s %q is not a loopback address: whoever reaches it could start, abort and read every transaction; "+
		"give --tls-cert, --tls-key and --auth-file (see docs/security.md), or --insecure to accept that", flag, addr)
}

// load reads the files.
func (a *access) load(log *slog.Logger) (err error) {
	if a.authFile != "" {
		if a.file, err = auth.OpenFile(a.authFile, log); err != nil {
			return err
		}
		if a.guard, err = auth.New(a.file, &auth.Config{Logger: log}); err != nil {
			return err
		}
	}
	if a.tlsCert == "" {
		return nil
	}
	if a.grpcTLS, err = auth.ServerTLS(a.tlsCert, a.tlsKey, a.clientCA, log); err != nil {
		return err
	}
	if a.httpTLS, err = auth.ServerTLS(a.tlsCert, a.tlsKey, a.clientCA, log); err != nil {
		return err
	}
	a.clusterTLS, err = a.toOthers()
	return err
}

// toOthers is how the other coordinators of the cluster are dialled: they talk
// TLS as this one does.
func (a *access) toOthers() (*tls.Config, error) {
	if a.clusterCA != "" {
		conf, err := auth.ClientTLS(a.clusterCA, "", "")
		if err != nil {
			return nil, fmt.Errorf("--cluster-ca: %w", err)
		}
		return conf, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil { // there is none on this machine
		pool = x509.NewCertPool()
	}
	own, err := os.ReadFile(a.tlsCert)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	pool.AppendCertsFromPEM(own) // what is in it was read a moment ago
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, nil
}

// prefetch fetches the keys of issuers. The log tells which of them is away.
func (a *access) prefetch(ctx context.Context) {
	if a.file != nil {
		a.file.Prefetch(ctx)
	}
}
