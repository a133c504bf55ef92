package auth

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestRate: a second's worth at once, then as many as the rate, for each subject.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(10, -1)
		burst := func(subject string) (n int) {
			for l.request(subject) == nil {
				n++
			}
			return n
		}
		if n := burst("ann"); n != 10 {
			t.Errorf("at once: %d, want 10", n)
		}
		if n := burst("bob"); n != 10 {
			t.Errorf("another's: %d, want 10", n)
		}
		time.Sleep(300 * time.Millisecond)
		if n := burst("ann"); n != 3 {
			t.Errorf("after 0.3 s: %d, want 3", n)
		}
		time.Sleep(time.Hour)
		if n := burst("ann"); n != 10 {
			t.Errorf("after an hour: %d, want 10", n)
		}
		var own *amendsv1.Error
		if err := l.request("ann"); !errors.As(err, &own) || !errors.Is(err, amendsv1.ErrOverloaded) || own.RetryAfter != 100*time.Millisecond {
			t.Errorf("%v, %+v", err, own)
		}
	})
}

// TestSlowRate: less than one per second is possible.
func TestSlowRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(0.5, -1)
		if a, b := l.request("ann"), l.request("ann"); a != nil || b == nil {
			t.Errorf("%v, %v", a, b)
		}
		time.Sleep(2 * time.Second)
		if err := l.request("ann"); err != nil {
			t.Error(err)
		}
	})
}

func TestStreams(t *testing.T) {
	g := newGuard(t, &people{ids: map[string]*Identity{"a": accounts("accounts")}}, &Config{Streams: 2})
	var open func(left int) error
	open = func(left int) error {
		return attend(t, g, "a", "", func(grpc.ServerStream) error {
			if left == 0 {
				return nil
			}
			return open(left - 1)
		})
	}
	if err := open(1); err != nil {
		t.Errorf("two: %v", err)
	}
	if err := open(2); !errors.Is(err, amendsv1.ErrOverloaded) {
		t.Errorf("three: %v, want ErrOverloaded", err)
	}
	if err := open(1); err != nil {
		t.Errorf("two again: %v", err)
	}
}

// TestForgotten: any number of subjects need bounded memory, and being forgotten
// gives nobody more.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(1, 1)
		release, err := l.stream("attends")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 * sweepFrom {
			if err := l.request(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if n := len(l.subjects); n > 2*sweepFrom+2 {
			t.Errorf("%d subjects are kept", n)
		}
		if _, err := l.stream("attends"); err == nil {
			t.Error("a second stream was let in")
		}
		release()
		if _, err := l.stream("attends"); err != nil {
			t.Error(err)
		}
	})
}

func TestRateThroughGuard(t *testing.T) {
	s := serving(t, newGuard(t, &people{ids: map[string]*Identity{"x": everybody("x")}}, &Config{Rate: 1e-9}))
	who := amendsv1.NewClusterServiceClient(s.conn)
	if _, err := who.WhoAmI(as(t.Context(), "x", ""), &amendsv1.WhoAmIRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := who.WhoAmI(as(t.Context(), "x", ""), &amendsv1.WhoAmIRequest{}); !errors.Is(amendsv1.FromError(err), amendsv1.ErrOverloaded) {
		t.Errorf("%v, want ErrOverloaded", err)
	}
}
