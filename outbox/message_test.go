package outbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"
)

// TestPartitionStays pins the hash: another one would reorder keys that have
// rows in the table during an upgrade.
func TestPartitionStays(t *testing.T) {
	want := map[string]int{"a": 0, "order-1": 1, "order-2": 0, "\xff": 2}
	for key, p := range want {
		if got := (&Message{Key: key}).partition(); got != p {
			t.Errorf("key %q is in partition %d, want %d", key, got, p)
		}
	}
	spread := map[int]bool{}
	for i := range 50 {
		spread[(&Message{ID: fmt.Sprint(i)}).partition()] = true
	}
	if len(spread) != ordinary { // the other one is for express topics
		t.Errorf("messages without a key use %d partitions", len(spread))
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("name", "\x00\xff")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, name, value string) {
		want := map[string]string{name: value, "other": "x"}
		data := encodeHeaders(want)
		got, err := decodeHeaders(data)
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		if _, err := decodeHeaders([]byte(value)); err != nil && !errors.Is(err, errHeaders) {
			t.Fatal(err)
		}
		if _, err := decodeHeaders(data[:len(data)-1]); err == nil {
			t.Fatal("cut headers were taken")
		}
	})
}

func TestClip(t *testing.T) {
	if got := clip(strings.Repeat("x", 5000), 100); len(got) > 100 || !strings.HasSuffix(got, "(5000 bytes in all)") {
		t.Errorf("got %q", got)
	}
}

func TestRouteKeepsOrder(t *testing.T) {
	var sent []string
	down := errors.New("down")
	part := func(fail string) Publisher {
		return PublishFunc(func(_ context.Context, m Message) error {
			if m.ID == fail {
				return down
			}
			sent = append(sent, m.ID)
			return nil
		})
	}
	r := Route(map[string]Publisher{"a": part("2"), "b": part("")}, nil)
	errs := r.Publish(t.Context(), []Message{
		{ID: "1", Topic: "a", Key: "k"}, {ID: "2", Topic: "a", Key: "k"}, {ID: "3", Topic: "b", Key: "k"},
		{ID: "4", Topic: "b", Key: "other"}, {ID: "5", Topic: "b"}, {ID: "6", Topic: "c"},
	})
	if strings.Join(sent, "") != "145" {
		t.Errorf("sent %v, want 1 4 5", sent)
	}
	for i, want := range []error{nil, down, ErrHeld, nil, nil, ErrPoison} {
		if !errors.Is(errs[i], want) {
			t.Errorf("message %d: %v, want %v", i+1, errs[i], want)
		}
	}
}

func TestConfigMistakes(t *testing.T) {
	o := New(SQLite, &Config{MaxMessage: -1, Policy: 9, Policies: map[string]Policy{"": Shed}})
	err := o.Write(t.Context(), nil, Message{Topic: "t"})
	for _, field := range []string{"MaxMessage", "Policy is", "Policies"} {
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	err = NewRelay(New(SQLite, nil), nil, nil, &RelayConfig{Lease: 1, Batch: -1, Poison: 7, PollMin: time.Hour,
		PollMax: time.Second, Share: math.NaN()}).Run(t.Context())
	for _, field := range []string{"Lease", "Batch", "Poison", "PollMin", "Share", "publisher"} {
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	if err := New(nil, nil).Write(t.Context(), nil); !errors.Is(err, ErrConfig) {
		t.Errorf("a nil dialect: %v", err)
	}
}
