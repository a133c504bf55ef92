package main

import (
	"bytes"
	"context"
	"testing"
	"time"
)

func TestOrders(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, &out, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	const want = "10 orders, 1 rolled back, 1 message sent twice: 10 mails, 1 duplicate suppressed\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
