package auth

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// oneStream is a stream whose other end says what it is given to say.
type oneStream struct {
	grpc.ServerStream
	ctx   context.Context
	hello string
}

func (s *oneStream) Context() context.Context { return s.ctx }
func (s *oneStream) SendMsg(any) error        { return nil }
func (s *oneStream) RecvMsg(m any) error {
	if s.hello != "" {
		m.(*amendsv1.AttendRequest).Message = &amendsv1.AttendRequest_Hello{Hello: &amendsv1.Hello{Service: s.hello}}
	}
	s.hello = ""
	return nil
}

// attend opens a stream of token's and lets use have it.
func attend(t *testing.T, g *Guard, token, hello string, use func(grpc.ServerStream) error) error {
	t.Helper()
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+token))
	info := &grpc.StreamServerInfo{FullMethod: amendsv1.ParticipantService_Attend_FullMethodName}
	return g.Stream(nil, &oneStream{ctx: ctx, hello: hello}, info, func(_ any, s grpc.ServerStream) error { return use(s) })
}

func accounts(services ...string) *Identity {
	return &Identity{Subject: "x", Grants: []Grant{{Role: service}}, Services: services}
}

func TestHello(t *testing.T) {
	who := &people{ids: map[string]*Identity{"one": accounts("accounts"), "none": accounts(), "all": accounts(All)}}
	g := newGuard(t, who, nil)
	for _, c := range []struct {
		token, hello string
		in           bool
	}{
		{"one", "accounts", true}, {"one", "cards", false}, {"none", "accounts", false}, {"all", "cards", true},
	} {
		err := attend(t, g, c.token, c.hello, func(s grpc.ServerStream) error { return s.RecvMsg(&amendsv1.AttendRequest{}) })
		if (err == nil) != c.in || err != nil && !errors.Is(err, amendsv1.ErrPermission) {
			t.Errorf("%s says %q: %v, want it to be let in: %v", c.token, c.hello, err, c.in)
		}
	}
}

// TestSecondHello: what holds for the first hello holds for each.
func TestSecondHello(t *testing.T) {
	g := newGuard(t, &people{ids: map[string]*Identity{"one": accounts("accounts")}}, nil)
	err := attend(t, g, "one", "accounts", func(s grpc.ServerStream) error {
		if err := s.RecvMsg(&amendsv1.AttendRequest{}); err != nil {
			return err
		}
		s.(*stream).ServerStream.(*oneStream).hello = "cards"
		return s.RecvMsg(&amendsv1.AttendRequest{})
	})
	if !errors.Is(err, amendsv1.ErrPermission) {
		t.Errorf("%v, want ErrPermission", err)
	}
}

// TestWithdrawn: a stream ends within a minute of its credentials, and not
// because somebody cannot be asked.
func TestWithdrawn(t *testing.T) {
	viewing := &Identity{Subject: "x", Grants: []Grant{{Role: viewer}}}
	other := &Identity{Subject: "y", Grants: []Grant{{Role: service}}, Services: []string{All}}
	moved := &Identity{Subject: "x", Grants: []Grant{{Namespace: "shop", Role: service}}, Services: []string{All}}
	for _, c := range []struct {
		name string
		id   *Identity
		err  error
		want error
	}{
		{"same", accounts("accounts"), nil, nil},
		{"token withdrawn", nil, nil, amendsv1.ErrUnauthenticated},
		{"role withdrawn", viewing, nil, amendsv1.ErrPermission},
		{"service withdrawn", accounts("cards"), nil, amendsv1.ErrPermission},
		{"another's now", other, nil, amendsv1.ErrUnauthenticated},
		{"elsewhere now", moved, nil, amendsv1.ErrUnauthenticated},
		{"cannot be told", nil, errors.New("no connection"), nil},
	} {
		for _, way := range []string{"send", "receive"} {
			t.Run(c.name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { withdrawn(t, c.id, c.err, c.want, way) })
			})
		}
	}
}

func withdrawn(t *testing.T, id *Identity, failure, want error, way string) {
	who := &people{ids: map[string]*Identity{"t": accounts("accounts")}}
	err := attend(t, newGuard(t, who, nil), "t", "accounts", func(s grpc.ServerStream) error {
		move := func() error { return s.RecvMsg(&amendsv1.AttendRequest{}) }
		if err := move(); err != nil { // the hello
			return fmt.Errorf("hello: %w", err)
		}
		if way == "send" {
			move = func() error { return s.SendMsg(&amendsv1.AttendResponse{}) }
		}
		who.set("t", id, failure)
		if err := move(); err != nil {
			return fmt.Errorf("at once: %w", err)
		}
		time.Sleep(recheckEvery)
		err := move()
		if again := move(); (again == nil) != (err == nil) {
			t.Errorf("first %v, then %v", err, again)
		}
		return err
	})
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("%v, want %v", err, want)
	}
}
