package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
)

const defaultAddr = "127.0.0.1:7460"

// loopback reports whether a host's name or address is this machine's own.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w (another address: %s host:port)", flag, addr, err, flag)
	}
	return lis, nil
}

// advertised is where others reach what listens on lis for the flag --listen:
// what --advertise says; else the host that --listen names; else, in a cluster,
// that of this machine. Empty: nowhere.
func advertised(advertise, listen string, lis net.Addr, cluster bool) (string, error) {
	if advertise != "" {
		return advertise, nil
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(lis.String())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = ""
		if cluster {
			name, _ := os.Hostname() // without one, it is reached nowhere
			host = cmp.Or(name, host)
		}
	}
	if host == "" {
		return "", nil
	}
	return net.JoinHostPort(host, port), nil
}

// checkAdvertise refuses what nobody can dial.
func checkAdvertise(addr string) error {
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if err != nil || host == "" || port == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return usagef("--advertise %q: want host:port, as the other coordinators and clients are to dial it", addr)
	}
	return nil
}
