package main

import (
	"bytes"
	"context"
	"testing"
	"time"
)

func TestTrip(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, &out, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	const want = `ada: booked
bob: not booked, room: nothing free on day 3
flights: unit 1 on day 1 is sold ada
flights: unit 2 on day 1 is free 
hotels: unit 1 on day 1 is free 
hotels: unit 2 on day 2 is sold ada
`
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
}
