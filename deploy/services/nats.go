package services

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NewNATS prepares a NATS server with JetStream; lines are further ones of its
// configuration ("max_payload: 20000"). The error is a MissingError when it is
// not installed.
func NewNATS(lines ...string) (_ *Process, err error) {
	program, err := findNATS()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := newDir(NATS)
	if err != nil {
		return nil, err
	}
	defer removeOnError(dir, &err)
	conf := fmt.Sprintf("listen: %q\nserver_name: amends\njetstream {\n  store_dir: %q\n  max_memory_store: 64MB\n  max_file_store: 1GB\n}\n",
		loopback(port), filepath.Join(dir, "data")) + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "nats.conf"), []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("services: nats: %w", err)
	}
	return &Process{
		Service: NATS, Addr: "nats://" + loopback(port), Dir: dir, Path: program, Args: []string{"--config", "nats.conf"},
	}, nil
}

// findNATS answers with the path of the server: one that is installed, else the
// one that Install has unpacked.
func findNATS() (string, error) {
	path, err := find([]string{"nats-server"}, "install NATS, or on Debian run `make services`, which unpacks its package nats-server",
		"nats-server")
	if err == nil {
		return path, nil
	}
	dir, e := debianFolder(NATS)
	if e != nil {
		return "", e
	}
	path = filepath.Join(dir, "usr", "sbin", "nats-server")
	if _, e := os.Stat(path); e != nil {
		return "", err
	}
	return path, nil
}

// pingNATS asks JetStream, which answers later than the server.
func pingNATS(ctx context.Context, url string) error {
	nc, err := nats.Connect(url, nats.NoReconnect(), nats.Timeout(2*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.AccountInfo(ctx)
	}
	return err
}
