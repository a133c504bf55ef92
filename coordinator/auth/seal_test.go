package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const pauseMethod = amendsv1.OperatorService_Pause_FullMethodName

func sealOf(self, secret string) *Seal {
	return NewSeal(self, func(context.Context) ([]byte, error) { return []byte(secret), nil })
}

var robot = Caller{
	Identity: Identity{Subject: "robot", Grants: []Grant{
		{Namespace: "shop", Role: amendsv1.Role_ROLE_OPERATOR}, {Namespace: "other", Role: amendsv1.Role_ROLE_BREAK_GLASS}}},
	Namespace: "shop", Authenticated: true,
}

// TestSeal: what a member vouches for is let in as that caller, and as no more;
// any other header is refused, counted, and in no log.
func TestSeal(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	req := &amendsv1.PauseRequest{Gid: "g", Reason: "r"}
	vouch := func(from, secret, to, method string, r proto.Message, c Caller) string {
		ctx, err := sealOf(from, secret).Vouch(t.Context(), to, method, r, c)
		if err != nil {
			t.Fatal(err)
		}
		md, _ := metadata.FromOutgoingContext(ctx)
		return md.Get(sealHeader)[0]
	}
	good := vouch("a", secret, "b", pauseMethod, req, robot)
	aged := func(at time.Time) string {
		var said sealed
		if err := json.Unmarshal([]byte(good[32:]), &said); err != nil {
			t.Fatal(err)
		}
		said.At = at
		text, err := json.Marshal(said)
		if err != nil {
			t.Fatal(err)
		}
		key, err := sealOf("a", secret).keyOf(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return string(append(macOf(key, text), text...))
	}
	viewer := robot
	viewer.Grants = []Grant{{Namespace: "shop", Role: amendsv1.Role_ROLE_VIEWER}}
	open := robot
	open.Authenticated = false
	for _, c := range []struct {
		name    string
		headers []string
		method  string
		req     proto.Message
		want    error
		says    string
		counted uint64
	}{
		{"good", []string{good}, pauseMethod, req, nil, "", 0},
		{"twice", []string{good, good}, pauseMethod, req, amendsv1.ErrUnauthenticated, "2 times", 1},
		{"cut", []string{good[:20]}, pauseMethod, req, amendsv1.ErrUnauthenticated, "20 bytes", 1},
		{"altered", []string{strings.Replace(good, "robot", "admin", 1)}, pauseMethod, req, amendsv1.ErrUnauthenticated, "no member", 1},
		{"another secret", []string{vouch("a", strings.Repeat("x", 32), "b", pauseMethod, req, robot)}, pauseMethod, req, amendsv1.ErrUnauthenticated, "no member", 1},
		{"another method", []string{good}, amendsv1.OperatorService_Abort_FullMethodName, &amendsv1.AbortRequest{Gid: "g", Reason: "r"}, amendsv1.ErrUnauthenticated, "another method", 1},
		{"another request", []string{good}, pauseMethod, &amendsv1.PauseRequest{Gid: "h", Reason: "r"}, amendsv1.ErrUnauthenticated, "another request", 1},
		{"expired", []string{aged(time.Now().Add(-2 * sealedFor))}, pauseMethod, req, amendsv1.ErrUnauthenticated, "expired", 1},
		{"of the future", []string{aged(time.Now().Add(2 * sealedFor))}, pauseMethod, req, amendsv1.ErrUnauthenticated, "expired", 1},
		{"for another member", []string{vouch("a", secret, "c", pauseMethod, req, robot)}, pauseMethod, req, amendsv1.ErrNotOwner, "forwarded to c", 0},
		{"of one that asks nobody", []string{vouch("a", secret, "b", pauseMethod, req, open)}, pauseMethod, req, amendsv1.ErrUnauthenticated, "asks nobody", 0},
		{"without the role", []string{vouch("a", secret, "b", pauseMethod, req, viewer)}, pauseMethod, req, amendsv1.ErrPermission, "operator", 0},
		{"without a header", nil, pauseMethod, req, amendsv1.ErrUnauthenticated, "no credentials", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			guard, err := New(Chain{}, &Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			seal := sealOf("b", secret)
			var saw Caller
			var from string
			ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{sealHeader: c.headers})
			_, err = guard.Trusting(seal).Unary(ctx, c.req, &grpc.UnaryServerInfo{FullMethod: c.method},
				func(ctx context.Context, _ any) (any, error) {
					saw, _ = FromContext(ctx)
					from, _ = ForwardedBy(ctx)
					return nil, nil
				})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) || seal.Refused() != c.counted {
				t.Errorf("%v, %d counted; want %v that says %q, %d counted", err, seal.Refused(), c.want, c.says, c.counted)
			}
			if c.want == nil && (saw.Subject != "robot" || saw.Namespace != "shop" || from != "a" || len(saw.Grants) != 1 || !saw.Authenticated) {
				t.Errorf("let in as %+v, from %q", saw, from)
			}
			if c.want != nil && saw.Subject != "" {
				t.Error("was let in")
			}
			for _, h := range c.headers {
				if len(h) > 32 && strings.Contains(log.String(), h[32:60]) {
					t.Errorf("the log has the header: %s", log.String())
				}
			}
		})
	}
	guard, err := New(Chain{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(sealHeader, good))
	if _, _, err := guard.enter(ctx, pauseMethod, req); !errors.Is(err, amendsv1.ErrUnauthenticated) {
		t.Errorf("a guard that trusts no member: %v", err)
	}
	if _, err := sealOf("a", "short").Vouch(t.Context(), "b", pauseMethod, req, robot); !errors.Is(err, amendsv1.ErrUnavailable) {
		t.Errorf("a short secret: %v", err)
	}
}

// TestSealAcrossVersions: a request with fields that only the sender knows is
// still the one that was sealed.
func TestSealAcrossVersions(t *testing.T) {
	raw, err := proto.Marshal(&amendsv1.StartSagaRequest{Gid: "g", Name: "n", Labels: map[string]string{"b": "1", "a": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	raw = append(raw, 0xfa, 0x7f, 1, 'x') // field 2047
	var one, two amendsv1.StartSagaRequest
	for _, m := range []*amendsv1.StartSagaRequest{&one, &two} {
		if err := proto.Unmarshal(raw, m); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := digestOf(&one)
	b, errB := digestOf(&two)
	if err := errors.Join(errA, errB); err != nil || !bytes.Equal(a, b) {
		t.Errorf("%x and %x, %v", a, b, err)
	}
	two.Gid = "h"
	if b, _ = digestOf(&two); bytes.Equal(a, b) {
		t.Error("another request has the same digest")
	}
}

// TestSealDeadline: nobody waits longer for the secret than they want to, and
// what is no header of a member asks for no secret.
func TestSealDeadline(t *testing.T) {
	asked, free := make(chan struct{}), make(chan struct{})
	seal := NewSeal("b", func(context.Context) ([]byte, error) {
		close(asked) // panics when it is read a second time meanwhile
		<-free
		return nil, errors.New("the store is away")
	})
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(sealHeader, "x"))
	if _, err := seal.open(ctx, pauseMethod); !errors.Is(err, amendsv1.ErrUnauthenticated) {
		t.Errorf("a header of one byte: %v", err)
	}
	var g errgroup.Group
	g.Go(func() error {
		_, err := seal.keyOf(context.Background())
		if errors.Is(err, amendsv1.ErrUnavailable) {
			return nil
		}
		return fmt.Errorf("a store that is away: %w", err)
	})
	<-asked
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	told := make(chan error, 1)
	g.Go(func() error {
		_, err := seal.keyOf(gone)
		told <- err
		return nil
	})
	select {
	case err := <-told:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that the caller is gone", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("waits for the store although its caller is gone")
	}
	close(free)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
