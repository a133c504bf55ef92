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

	"github.com/amends-dev/amends/deploy/servicestest"
)

// patience is how long a busy machine may take.
const patience = 30 * time.Second

// newRedisKeys makes keys that are patient unless told otherwise.
func newRedisKeys(t testing.TB, addr string, cfg RedisConfig) (*RedisKeys, *redis.Client) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
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

func TestRedisAcked(t *testing.T) { onRedis(t, testRedisAcked) }

func testRedisAcked(t *testing.T, r *testRedis) {
	keys, client := newRedisKeys(t, r.addr, RedisConfig{AckedTTL: 2 * time.Second})
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
	for deadline := time.Now().Add(patience); client.Exists(ctx, "amends:acked:1").Val() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not expire")
		}
	}
}

func TestRedisSeenAndDone(t *testing.T) { onRedis(t, testRedisSeenAndDone) }

func testRedisSeenAndDone(t *testing.T, r *testRedis) {
	keys, client := newRedisKeys(t, r.addr, RedisConfig{Prefix: "p:", Window: 2 * time.Second})
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
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
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

func TestRedisForgets(t *testing.T) { onRedis(t, testRedisForgets) }

func testRedisForgets(t *testing.T, r *testRedis) {
	keys, client := newRedisKeys(t, r.addr, RedisConfig{Pause: 10 * time.Millisecond})
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
		"restart":  func() { r.stop(); r.start() },
	} {
		deadline := time.Now().Add(patience)
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
	t.Run("accepts and never answers", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		testRedisHangs(t, l.Addr().String())
	})
	t.Run("stopped by a signal", func(t *testing.T) {
		r := servicestest.StartRedis(t)
		r.Pause()
		testRedisHangs(t, r.Addr)
	})
}

func testRedisHangs(t *testing.T, addr string) {
	var log strings.Builder
	keys, _ := newRedisKeys(t, addr, RedisConfig{
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
	if d := time.Since(start); d > patience { // were each to wait, it would be 50 s
		t.Errorf("1,001 calls took %v", d)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines logged, want 1:\n%s", n, log.String())
	}
}

func TestRedisComesBack(t *testing.T) { onRedis(t, testRedisComesBack) }

func testRedisComesBack(t *testing.T, r *testRedis) {
	r.stop()
	keys, _ := newRedisKeys(t, r.addr, RedisConfig{Pause: 20 * time.Millisecond})
	if err := keys.MarkSeen(t.Context(), []string{"a"}); err == nil {
		t.Fatal("marked without a server")
	}
	r.start()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := keys.MarkSeen(t.Context(), []string{"a"})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestCallersEndIsNoOutage(t *testing.T) { onRedis(t, testCallersEndIsNoOutage) }

func testCallersEndIsNoOutage(t *testing.T, r *testRedis) {
	keys, _ := newRedisKeys(t, r.addr, RedisConfig{})
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

// TestRedisEvicts has more keys than memory: marking goes on, the oldest marks
// are misses, and no key is taken for another one.
func TestRedisEvicts(t *testing.T) {
	r := servicestest.StartRedis(t, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
	keys, client := newRedisKeys(t, r.Addr, RedisConfig{})
	const batches, each = 100, 500
	for b := range batches {
		if err := errors.Join(keys.MarkSeen(t.Context(), ids(fmt.Sprint("k", b, "-"), each)),
			keys.MarkAcked(t.Context(), b%4, ids(fmt.Sprint("k", b, "-"), each))); err != nil {
			t.Fatal(err)
		}
	}
	if info := client.Info(t.Context(), "stats").Val(); strings.Contains(info, "evicted_keys:0\r") {
		t.Fatal("nothing was evicted: the test proves nothing")
	}
	found := 0
	for b := range batches {
		seen, err := keys.Seen(t.Context(), append(ids(fmt.Sprint("k", b, "-"), each), ids(fmt.Sprint("never", b, "-"), each)...))
		if err != nil {
			t.Fatal(err)
		}
		for i, yes := range seen {
			if yes && i >= each {
				t.Fatalf("a key that was never marked is seen")
			}
			if yes {
				found++
			}
		}
	}
	if found == 0 || found == batches*each {
		t.Errorf("%d of %d keys are remembered, want some", found, batches*each)
	}
}
