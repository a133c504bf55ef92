package main

import (
	"bytes"
	"context"
	"testing"
	"time"
)

func TestTransfer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, &out, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	const want = `alice to bob, 500: committed
alice to bob, 100000: rolled back at "debit": account alice: unknown, or not enough money
alice to nobody, 100: rolled back at "credit": account nobody: unknown, or not enough money
alice has 500
bob has 500
`
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
}
