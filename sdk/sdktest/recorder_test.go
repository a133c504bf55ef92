package sdktest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorder is a testing.TB that takes failures instead of failing.
type recorder struct {
	testing.TB
	mu   sync.Mutex
	said strings.Builder
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.said, format+"\n", args...)
}

func (r *recorder) Fatal(args ...any) {
	r.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// run returns when fn does or when it called Fatal.
func (r *recorder) run(fn func()) {
	var wg sync.WaitGroup
	wg.Go(fn)
	wg.Wait()
}

func (r *recorder) want(t testing.TB, parts ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range parts {
		if !strings.Contains(r.said.String(), p) {
			t.Errorf("it said %q, want %q in it", r.said.String(), p)
		}
	}
}
