package sdk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// attended is a participant that runs against a fake.
type attended struct {
	*bench
	fake *fakeCoordinator
	stop context.CancelFunc
	done chan error
}

func attend(t *testing.T, f *fakeCoordinator, conns int) *attended {
	t.Helper()
	a := &attended{bench: newBench(t), fake: f, done: make(chan error, 1)}
	var all []grpc.ClientConnInterface
	conn := serve(t, f)
	for range conns {
		all = append(all, conn)
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	go func() { a.done <- a.Run(ctx, all...) }()
	t.Cleanup(func() { stop(); a.calls.Wait() })
	return a
}

func numbered(n int) *amendsv1.Call {
	m := msg(opDo, debitName)
	m.Gid = fmt.Sprint("g", n)
	return m
}

func TestAttend(t *testing.T) {
	a := attend(t, &fakeCoordinator{}, 1)
	s := receive(t, "the stream", a.fake.streams)
	h := s.hello
	if h.GetProtocolVersion() != 1 || h.GetService() != "accounts" || h.GetCapacity() != DefaultConcurrency || h.GetInstance() == "" ||
		!slices.Equal(h.GetActions(), []string{debitName, noteName, "accounts.odd", seatName, shipName}) {
		t.Errorf("hello %v", h)
	}
	var calls []*amendsv1.Call
	for n := range 3 * DefaultConcurrency { // more than the capacity: they wait
		calls = append(calls, numbered(n))
	}
	s.call(t, calls...)
	for range calls {
		if out := receive(t, "an outcome", s.outcomes); out.GetCode() != codeOK {
			t.Fatalf("%v", out)
		}
	}
	a.stop()
	receive(t, "the drain", s.drained)
	receive(t, "the end of the stream", s.closed)
	if err := receive(t, "the end of Run", a.done); err != nil {
		t.Fatal(err)
	}
}

func TestDrainFinishesWhatRuns(t *testing.T) {
	a := attend(t, &fakeCoordinator{}, 1)
	started, release := make(chan error, 1), make(chan struct{})
	a.meet = func(ctx context.Context, _ *sql.Tx, _ debitReq) error {
		started <- ctx.Err()
		<-release
		return ctx.Err() // of the call: the end of Run does not reach it
	}
	s := receive(t, "the stream", a.fake.streams)
	s.call(t, numbered(1))
	receive(t, "the handler", started)
	a.stop()
	receive(t, "the drain", s.drained)
	select {
	case <-s.closed:
		t.Fatal("the stream was closed while a call ran")
	case err := <-a.done:
		t.Fatalf("Run ended while a call ran: %v", err)
	default:
	}
	close(release)
	want(t, receive(t, "the outcome", s.outcomes), codeOK, firstReply, "")
	if err := receive(t, "the end of Run", a.done); err != nil {
		t.Fatal(err)
	}
	a.stands(t, "do alice 5")
}

func TestDrainTimeout(t *testing.T) {
	f := &fakeCoordinator{}
	conn := serve(t, f)
	started, release := make(chan struct{}), make(chan struct{})
	p := NewParticipant("accounts", database(t), outbox.SQLite, &ParticipantConfig{DrainTimeout: 50 * time.Millisecond, Logger: quiet()})
	HandleSaga(p, debit, func(context.Context, *sql.Tx, debitReq) (debitRep, error) {
		close(started)
		<-release // ignores its context
		return debitRep{}, nil
	}, nil)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, conn) }()
	s := receive(t, "the stream", f.streams)
	s.call(t, numbered(1))
	receive(t, "the handler", started)
	stop()
	if err := receive(t, "the end of Run", done); err == nil || !strings.Contains(err.Error(), "ignore their context") {
		t.Errorf("error %v", err)
	}
	close(release)
	p.calls.Wait()
}

func TestReconnects(t *testing.T) {
	a := attend(t, &fakeCoordinator{}, 1)
	started, release := make(chan struct{}, 2), make(chan struct{})
	a.meet = func(context.Context, *sql.Tx, debitReq) error { started <- struct{}{}; <-release; return nil }
	s := receive(t, "the stream", a.fake.streams)
	s.call(t, numbered(1))
	receive(t, "the handler", started)
	close(s.hangUp)
	s = receive(t, "the second stream", a.fake.streams)
	close(release)
	s.call(t, numbered(1)) // the coordinator asks again, and the guard answers once
	want(t, receive(t, "the outcome", s.outcomes), codeOK, firstReply, "")
	a.stands(t, "do alice 5")
}

func TestSilentCoordinatorIsLeft(t *testing.T) {
	a := attend(t, &fakeCoordinator{mute: true, heartbeat: 20 * time.Millisecond}, 1)
	receive(t, "the stream", a.fake.streams)
	receive(t, "the second stream", a.fake.streams)
}

func TestPingsKeepTheStream(t *testing.T) {
	a := attend(t, &fakeCoordinator{heartbeat: 50 * time.Millisecond}, 1)
	receive(t, "the stream", a.fake.streams)
	select { // ten times as long as silence is borne
	case <-a.fake.streams:
		t.Fatal("the stream was left")
	case <-time.After(500 * time.Millisecond):
	}
}

func TestSeveralConnectionsShareTheHandlers(t *testing.T) {
	a := attend(t, &fakeCoordinator{}, 2)
	one, two := receive(t, "a stream", a.fake.streams), receive(t, "a stream", a.fake.streams)
	one.call(t, numbered(1))
	two.call(t, numbered(1))
	want(t, receive(t, "an outcome", one.outcomes), codeOK, firstReply, "")
	want(t, receive(t, "an outcome", two.outcomes), codeOK, firstReply, "")
	a.stands(t, "do alice 5")
}

func TestRunReturnsWhenHopeless(t *testing.T) {
	for _, sentinel := range []error{ErrProtocolVersion, ErrInvalidArgument} {
		a := attend(t, &fakeCoordinator{reject: func(*amendsv1.Hello) error { return sentinel }}, 1)
		if err := receive(t, "the end of Run", a.done); !errors.Is(err, sentinel) {
			t.Errorf("error %v, want %v", err, sentinel)
		}
	}
}

func TestRunKeepsTryingOtherwise(t *testing.T) {
	rejections := 0
	a := attend(t, &fakeCoordinator{reject: func(*amendsv1.Hello) error {
		if rejections++; rejections < 3 {
			return ErrUnavailable
		}
		return nil
	}}, 1)
	receive(t, "the stream", a.fake.streams)
}

func TestRunMisuse(t *testing.T) {
	db := database(t)
	p := NewParticipant("accounts", db, outbox.SQLite, &ParticipantConfig{Logger: quiet()})
	conn := serve(t, &fakeCoordinator{})
	mustSay(t, p.Run(t.Context(), conn), "no actions")
	HandleSaga(p, debit, func(context.Context, *sql.Tx, debitReq) (debitRep, error) { return debitRep{}, nil }, nil)
	mustSay(t, p.Run(t.Context()), "no connection")
	mustSay(t, p.Run(t.Context(), nil), "connection is nil")
	db.Close()
	mustSay(t, p.Run(t.Context(), conn), "guard's tables")
}

func mustSay(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v does not say %q", err, text)
	}
}

func TestRegistrationMisuse(t *testing.T) {
	db := database(t)
	do := func(context.Context, *sql.Tx, debitReq) (debitRep, error) { return debitRep{}, nil }
	end := func(context.Context, *sql.Tx, debitReq, debitRep) error { return nil }
	fresh := func() *Participant { return NewParticipant("accounts", db, outbox.SQLite, nil) }
	tests := []struct {
		text string
		fn   func()
	}{
		{"db is nil", func() { NewParticipant("accounts", nil, outbox.SQLite, nil) }},
		{"dialect is nil", func() { NewParticipant("accounts", db, nil, nil) }},
		{"service is empty", func() { NewParticipant("", db, outbox.SQLite, nil) }},
		{"Concurrency is -1", func() {
			NewParticipant("accounts", db, outbox.SQLite, &ParticipantConfig{Concurrency: -1})
		}},
		{"handled already, with HandleSaga", func() {
			p := fresh()
			HandleSaga(p, debit, do, nil)
			HandleSaga(p, debit, do, nil)
		}},
		{`belongs to service "bank"`, func() {
			HandleSaga(fresh(), saga.NewAction[debitReq, debitRep]("bank.debit"), do, nil)
		}},
		{"do is nil", func() { HandleSaga(fresh(), debit, nil, end) }},
		{"make actions with NewAction", func() { HandleSaga(fresh(), saga.Action[debitReq, debitRep]{}, do, end) }},
		{"one is nil", func() { HandleTCC(fresh(), seat, do, end, nil) }},
		{"before Run", func() {
			p := fresh()
			p.running = true
			HandleTCC(p, seat, do, end, end)
		}},
	}
	for _, test := range tests {
		func() {
			defer func() {
				if v := fmt.Sprint(recover()); !strings.Contains(v, test.text) {
					t.Errorf("panic %q does not say %q", v, test.text)
				}
			}()
			test.fn()
		}()
	}
}
