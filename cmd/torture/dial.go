package main

import (
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/amends-dev/amends/sdk"
)

// dial connects to the cluster, and looks often whether a coordinator that was
// killed is back.
func dial(addresses []string, log *slog.Logger) (grpc.ClientConnInterface, io.Closer, error) {
	often := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	c, err := sdk.Dial(addresses, &sdk.DialConfig{Options: []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: often, MinConnectTimeout: time.Second}),
	}, Logger: log})
	return c, c, err
}
