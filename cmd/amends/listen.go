package main

import (
	"context"
	"fmt"
	"net"
)

const defaultAddr = "127.0.0.1:7460"

// checkListen refuses an address that others can reach, unless they may.
func checkListen(flag, addr string, insecure bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("%s %q: want host:port, for example %s", flag, addr, defaultAddr)
	}
	if insecure || host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	return usagef("%s %q is not a loopback address, and this version has no TLS and no login yet "+
		"(see SECURITY.md): whoever reaches the port can start, abort and read every transaction; "+
		"give --insecure to accept that", flag, addr)
}

func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w (another address: %s host:port)", flag, addr, err, flag)
	}
	return lis, nil
}
