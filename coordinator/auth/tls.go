package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
)

// ServerTLS is the configuration of a server with a certificate (a chain, leaf
// first) and its key, both PEM, that asks clients for certificates signed by one
// of clientCAFile, unless that is empty. A client may still come without one and
// bring a token. It speaks TLS 1.3 only.
//
// The files are read again within a second of a change when clients connect;
// while they do not fit, what was read before still counts, and the log says so.
// A nil log is slog.Default().
func ServerTLS(certFile, keyFile, clientCAFile string, log *slog.Logger) (*tls.Config, error) {
	if log == nil {
		log = slog.Default()
	}
	paths := []string{certFile, keyFile}
	if clientCAFile != "" {
		paths = append(paths, clientCAFile)
	}
	r, err := newReloaded("the server's certificate in "+certFile, paths, log, func() (*tls.Config, error) {
		return loadServer(certFile, keyFile, clientCAFile)
	})
	if err != nil {
		return nil, err
	}
	cfg := r.get().Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.get(), nil }
	return cfg, nil
}

func loadServer(certFile, keyFile, clientCAFile string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		err = fmt.Errorf("auth: the certificate in %s and the key in %s: %w", certFile, keyFile, err)
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{"h2", "http/1.1"},
		// A ticket would outlive the authority that signed the client.
		SessionTicketsDisabled: true,
	}
	if clientCAFile != "" {
		pool, poolErr := loadPool(clientCAFile)
		err = errors.Join(err, poolErr)
		cfg.ClientCAs, cfg.ClientAuth = pool, tls.VerifyClientCertIfGiven
	}
	return cfg, err
}

// ClientTLS is the configuration of a client that trusts the authorities in
// caFile (empty: the system's), and shows a certificate if certFile and keyFile
// are given.
func ClientTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	var errs []error
	if caFile != "" {
		pool, err := loadPool(caFile)
		cfg.RootCAs, errs = pool, append(errs, err)
	}
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("auth: the certificate in %q and the key in %q: %w", certFile, keyFile, err))
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, errors.Join(errs...)
}

func loadPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("auth: certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("auth: certificate authorities: no certificate in %s", path)
	}
	return pool, nil
}
