package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/amends-dev/amends/outbox/outboxdev"
)

func startRedis(t testing.TB, addr string) *outboxdev.Redis {
	t.Helper()
	r, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Addr: addr, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func newRedisKeys(t testing.TB, addr string, cfg RedisConfig) (*RedisKeys, *redis.Client) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	keys, err := NewRedisKeys(client, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	return keys, client
}

func ids(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(prefix, i)
	}
	return out
}

func TestRedisAcked(t *testing.T) {
	r := startRedis(t, "")
	keys, client := newRedisKeys(t, r.Addr(), RedisConfig{AckedTTL: 300 * time.Millisecond})
	ctx := t.Context()
	if err := errors.Join(keys.MarkAcked(ctx, 1, ids("a", 300)), keys.MarkAcked(ctx, 1, ids("b", 3))); err != nil {
		t.Fatal(err)
	}
	got, err := keys.Acked(ctx, 1, []string{"a0", "a299", "b2", "c0"})
	if err != nil || len(got) != 3 || !got["a0"] || !got["a299"] || !got["b2"] {
		t.Errorf("acked %v, %v", got, err)
	}
	if got, err := keys.Acked(ctx, 2, []string{"a0"}); err != nil || len(got) != 0 {
		t.Errorf("another partition: %v, %v", got, err)
	}
	if n := client.LLen(ctx, "amends:acked:1").Val(); n != 2 {
		t.Errorf("%d values, want one per batch", n)
	}
	for i := range 2 * ackedBatches {
		if err := keys.MarkAcked(ctx, 1, []string{fmt.Sprint("z", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := client.LLen(ctx, "amends:acked:1").Val(); n != ackedBatches {
		t.Errorf("%d values are kept, want %d", n, ackedBatches)
	}
	for deadline := time.Now().Add(5 * time.Second); client.Exists(ctx, "amends:acked:1").Val() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not expire")
		}
	}
}

func TestRedisSeenAndDone(t *testing.T) {
	r := startRedis(t, "")
	keys, client := newRedisKeys(t, r.Addr(), RedisConfig{Prefix: "p:", Window: 200 * time.Millisecond})
	ctx := t.Context()
	if err := errors.Join(keys.MarkSeen(ctx, []string{"x", "y"}), keys.MarkDone(ctx, "g", []string{"x"})); err != nil {
		t.Fatal(err)
	}
	seen, err := keys.Seen(ctx, []string{"x", "z", "y"})
	if err != nil || fmt.Sprint(seen) != "[true false true]" {
		t.Errorf("seen %v, %v", seen, err)
	}
	for group, want := range map[string]string{"g": "[true false]", "h": "[false false]"} {
		if done, err := keys.Done(ctx, group, []string{"x", "y"}); err != nil || fmt.Sprint(done) != want {
			t.Errorf("done for %s: %v, %v, want %s", group, done, err, want)
		}
	}
	for _, k := range client.Keys(ctx, "*").Val() {
		if !strings.HasPrefix(k, "p:") {
			t.Errorf("key %q without the prefix", k)
		}
	}
	if seen, err := keys.Seen(ctx, nil); err != nil || seen != nil {
		t.Errorf("no keys: %v, %v", seen, err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		seen, err := keys.Seen(ctx, []string{"x"})
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the window does not end: %v, %v", seen, err)
		}
		if !seen[0] {
			return
		}
		if err := keys.MarkSeen(ctx, []string{"x"}); err != nil { // which must not prolong the window
			t.Fatal(err)
		}
	}
}

func TestRedisForgets(t *testing.T) {
	r := startRedis(t, "")
	keys, client := newRedisKeys(t, r.Addr(), RedisConfig{Pause: 10 * time.Millisecond})
	ctx := t.Context()
	mark := func() error {
		return errors.Join(keys.MarkAcked(ctx, 0, []string{"a"}), keys.MarkSeen(ctx, []string{"a"}), keys.MarkDone(ctx, "g", []string{"a"}))
	}
	remembers := func() string {
		acked, e1 := keys.Acked(ctx, 0, []string{"a"})
		seen, e2 := keys.Seen(ctx, []string{"a"})
		done, e3 := keys.Done(ctx, "g", []string{"a"})
		if err := errors.Join(e1, e2, e3); err != nil {
			return "error"
		}
		return fmt.Sprint(acked["a"], seen[0], done[0])
	}
	for name, forget := range map[string]func(){
		"flush":    func() { client.FlushAll(ctx) },
		"eviction": func() { client.Del(ctx, client.Keys(ctx, "*").Val()...) },
		"restart":  func() { r.Close(); r = startRedis(t, r.Addr()) },
	} {
		deadline := time.Now().Add(5 * time.Second)
		for mark() != nil && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if got := remembers(); got != "true true true" {
			t.Fatalf("before %s: %s", name, got)
		}
		forget()
		got := remembers()
		for got == "error" && time.Now().Before(deadline) { // the first calls after a restart
			time.Sleep(5 * time.Millisecond)
			got = remembers()
		}
		if got != "false false false" {
			t.Errorf("after %s: %s, want misses", name, got)
		}
	}
}

func TestRedisOutageCostsLittle(t *testing.T) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	var log strings.Builder
	keys, _ := newRedisKeys(t, hanging.Addr().String(), RedisConfig{
		Timeout: 50 * time.Millisecond, Pause: 10 * time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	start := time.Now()
	if _, err := keys.Seen(t.Context(), []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hanging server: %v", err)
	}
	for range 1000 {
		if _, err := keys.Seen(t.Context(), []string{"a"}); !errors.Is(err, ErrRedisAway) {
			t.Fatalf("within the pause: %v", err)
		}
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("1,001 calls took %v", d)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines logged, want 1:\n%s", n, log.String())
	}
}

func TestRedisComesBack(t *testing.T) {
	r := startRedis(t, "")
	addr := r.Addr()
	r.Close()
	keys, _ := newRedisKeys(t, addr, RedisConfig{Pause: 20 * time.Millisecond})
	if err := keys.MarkSeen(t.Context(), []string{"a"}); err == nil {
		t.Fatal("marked without a server")
	}
	startRedis(t, addr)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := keys.MarkSeen(t.Context(), []string{"a"})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestCallersEndIsNoOutage(t *testing.T) {
	r := startRedis(t, "")
	keys, _ := newRedisKeys(t, r.Addr(), RedisConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := keys.MarkSeen(ctx, []string{"a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := keys.MarkSeen(t.Context(), []string{"a"}); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestWrongRedisConfig(t *testing.T) {
	_, err := NewRedisKeys(nil, &RedisConfig{Window: -1, Pause: time.Nanosecond})
	for _, want := range []string{"client is nil", "Window", "Pause"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}
