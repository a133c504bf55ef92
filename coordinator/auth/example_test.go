package auth_test

import (
	"context"
	"log/slog"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/store"
)

// guarded is a coordinator that asks who calls.
func guarded(ctx context.Context, st store.Store, log *slog.Logger) (*coordinator.Coordinator, error) {
	file, err := auth.OpenFile("auth.json", log)
	if err != nil {
		return nil, err
	}
	guard, err := auth.New(file, nil)
	if err != nil {
		return nil, err
	}
	tls, err := auth.ServerTLS("server.crt", "server.key", "clients.crt", log)
	if err != nil {
		return nil, err
	}
	return coordinator.New(ctx, st, &coordinator.Config{Auth: guard, TLS: tls})
}

func ExampleNew() {
	_ = guarded
}
