package main

import (
	"context"
	"fmt"
	"net"
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
