package sdk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

var transfer = saga.Define("transfer", func(b *saga.Builder, in debitReq) {
	b.Timeout(time.Hour)
	b.Step("debit", debit.With(in)).Attempts(5)
	b.Step("check", debit.With(in)).After()
	b.Step("ship", ship.With(in)).After("debit", "check").Pivot()
	b.Step("tell", ship.With(in)).Retriable()
})

func client(t *testing.T, f *fakeCoordinator) *Client {
	t.Helper()
	return NewClient(serve(t, f), &ClientConfig{Logger: quiet()})
}

func tx(state amendsv1.State, cause *amendsv1.Cause) *amendsv1.Transaction {
	return &amendsv1.Transaction{State: state, Cause: cause}
}

const (
	running, rollingBack  = amendsv1.State_STATE_RUNNING, amendsv1.State_STATE_ROLLING_BACK
	committed, rolledBack = amendsv1.State_STATE_COMMITTED, amendsv1.State_STATE_ROLLED_BACK
)

func TestStartSends(t *testing.T) {
	var got []*amendsv1.StartSagaRequest
	f := &fakeCoordinator{}
	f.start = func(_ context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		got = append(got, r)
		if len(got) < 3 {
			return nil, status.Error(codes.Unavailable, "later")
		}
		return &amendsv1.StartSagaResponse{Created: true}, nil
	}
	labels := map[string]string{"order_id": "A-17"}
	run, err := Start(t.Context(), client(t, f), transfer, debitReq{"alice", 5}, &StartConfig{Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || !proto.Equal(got[0], got[2]) {
		t.Fatalf("asked %d times, with %v and then %v", len(got), got[0], got[len(got)-1])
	}
	r := got[0]
	if run.GID() == "" || r.GetGid() != run.GID() || r.GetName() != "transfer" || r.GetLabels()["order_id"] != "A-17" ||
		r.GetTimeout().AsDuration() != time.Hour {
		t.Errorf("request %v, gid %q", r, run.GID())
	}
	var steps []string
	for _, s := range r.GetSteps() {
		steps = append(steps, fmt.Sprintf("%s %s after %v %v attempts %d %s",
			s.GetName(), s.GetAction(), s.GetAfter(), s.GetKind(), s.GetRetry().GetAttempts(), s.GetPayload()))
	}
	want := `debit accounts.debit after [] STEP_KIND_COMPENSATABLE attempts 5 {"From":"alice","Cents":5}
check accounts.debit after [] STEP_KIND_COMPENSATABLE attempts 0 {"From":"alice","Cents":5}
ship accounts.ship after [debit check] STEP_KIND_PIVOT attempts 0 {"From":"alice","Cents":5}
tell accounts.ship after [ship] STEP_KIND_RETRIABLE attempts 0 {"From":"alice","Cents":5}`
	if s := strings.Join(steps, "\n"); s != want {
		t.Errorf("steps:\n%s\nwant:\n%s", s, want)
	}
}

func TestStartErrors(t *testing.T) {
	var answer error
	f := &fakeCoordinator{start: func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		return nil, answer
	}}
	c := client(t, f)
	for _, answer = range []error{ErrGIDConflict, ErrOverloaded.WithRetryAfter(time.Second), ErrUnknownAction, ErrTooLarge} {
		_, err := Start(t.Context(), c, transfer, debitReq{}, nil)
		if !errors.Is(err, answer) || errors.Is(err, ErrUnknown) {
			t.Errorf("error %v, want %v", err, answer)
		}
	}
	var full *CoordinatorError
	answer = ErrOverloaded.WithRetryAfter(time.Second)
	if _, err := Start(t.Context(), c, transfer, debitReq{}, nil); !errors.As(err, &full) || full.RetryAfter != time.Second {
		t.Errorf("error %v", err)
	}
	answer = ErrUnavailable
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Start(ctx, c, transfer, debitReq{}, &StartConfig{GID: "mine"})
	var unknown *UnknownError
	if !errors.As(err, &unknown) || unknown.GID != "mine" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestWrongStarts(t *testing.T) {
	c := client(t, &fakeCoordinator{}) // is never asked
	empty := saga.Define("empty", func(*saga.Builder, int) {})
	_, err := Start(t.Context(), c, empty, 0, nil)
	if !errors.Is(err, ErrInvalidDefinition) {
		t.Errorf("no steps: %v", err)
	}
	for _, test := range []struct {
		cfg      StartConfig
		sentinel error
		text     string
	}{
		{StartConfig{GID: "a b"}, ErrInvalidGID, "space"},
		{StartConfig{GID: strings.Repeat("g", 129)}, ErrInvalidGID, "129"},
		{StartConfig{Timeout: -1}, ErrInvalidArgument, "timeout"},
		{StartConfig{Namespace: "elsewhere"}, ErrInvalidArgument, `the client's is ""`},
		{StartConfig{Labels: map[string]string{"Order": "1"}}, ErrInvalidArgument, `"Order"`},
		{StartConfig{Labels: map[string]string{"order": "\xff"}}, ErrInvalidArgument, `"order"`},
	} {
		_, err := Start(t.Context(), c, transfer, debitReq{}, &test.cfg)
		if !errors.Is(err, test.sentinel) {
			t.Errorf("%+v: %v", test.cfg, err)
		}
		mustSay(t, err, test.text)
	}
	odd := NewClient(serve(t, &fakeCoordinator{}), &ClientConfig{Namespace: "a\nb"})
	_, err = Start(t.Context(), odd, transfer, debitReq{}, nil)
	mustSay(t, err, `ClientConfig.Namespace: a namespace is`)
	none := NewClient(nil, nil)
	_, err = Start(t.Context(), none, transfer, debitReq{}, nil)
	mustSay(t, err, "no connection")
	mustSay(t, none.Run("g").Wait(t.Context()), "no connection")
	mustSay(t, RunTCC(t.Context(), nil, "trip", nil, nil), "no connection")
}

func TestWait(t *testing.T) {
	cause := &amendsv1.Cause{Branch: "debit", Code: CodeRefused, Message: "no money"}
	type reply struct {
		tx  *amendsv1.Transaction
		err error
	}
	tests := []struct {
		name    string
		replies []reply
		check   func(error) bool
	}{
		{"committed", []reply{{tx(committed, nil), nil}}, func(err error) bool { return err == nil }},
		{"later", []reply{{nil, ErrUnavailable}, {tx(running, nil), nil}, {tx(rollingBack, cause), nil}, {tx(rolledBack, cause), nil}},
			func(err error) bool {
				var rb *RolledBackError
				return errors.As(err, &rb) && errors.Is(err, ErrRolledBack) && !errors.Is(err, ErrUnknown) &&
					rb.GID == "g" && rb.Step == "debit" && rb.Code == CodeRefused && rb.Reason == "no money" &&
					err.Error() == `sdk: transaction "g" rolled back: step "debit": REFUSED: no money`
			}},
		{"parked", []reply{{tx(amendsv1.State_STATE_PARKED, cause), nil}}, func(err error) bool {
			var u *UnknownError
			return errors.As(err, &u) && u.State == txn.Parked && strings.Contains(err.Error(), "no money")
		}},
		{"abandoned", []reply{{tx(amendsv1.State_STATE_ABANDONED, nil), nil}}, func(err error) bool {
			return errors.Is(err, ErrUnknown) && errors.Is(err, ErrAbandoned) && !errors.Is(err, ErrRolledBack)
		}},
		{"refused", []reply{{nil, status.Error(codes.PermissionDenied, "a proxy's word")}}, func(err error) bool {
			return errors.Is(err, ErrUnknown) && errors.Is(err, ErrPermission) && strings.Contains(err.Error(), "a proxy's word")
		}},
		{"not found", []reply{{nil, ErrNotFound}}, func(err error) bool {
			return errors.Is(err, ErrUnknown) && errors.Is(err, ErrNotFound) && !errors.Is(err, ErrRolledBack)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := 0
			c := client(t, &fakeCoordinator{wait: func(_ context.Context, r *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
				reply := test.replies[min(n, len(test.replies)-1)]
				n++
				return &amendsv1.WaitTransactionResponse{Transaction: reply.tx}, reply.err
			}})
			if err := c.Run("g").Wait(t.Context()); !test.check(err) {
				t.Errorf("after %d questions: %v", n, err)
			}
		})
	}
}

func TestWaitUntilContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	c := client(t, &fakeCoordinator{wait: func(rpc context.Context, _ *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		if asked++; asked == 1 {
			return &amendsv1.WaitTransactionResponse{Transaction: tx(running, nil)}, nil
		}
		cancel()
		<-rpc.Done()
		return nil, rpc.Err()
	}})
	err := c.Run("g").Wait(ctx)
	var u *UnknownError
	if !errors.As(err, &u) || u.State != txn.Running || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestStateAndAbort(t *testing.T) {
	var reason string
	c := client(t, &fakeCoordinator{
		wait: func(context.Context, *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
			return &amendsv1.WaitTransactionResponse{Transaction: tx(rollingBack, nil)}, nil
		},
		abort: func(_ context.Context, r *amendsv1.AbortTransactionRequest) (*amendsv1.AbortTransactionResponse, error) {
			reason = r.GetReason()
			return &amendsv1.AbortTransactionResponse{}, nil
		},
	})
	if s, err := c.Run("g").State(t.Context()); s != txn.RollingBack || err != nil {
		t.Error(s, err)
	}
	if err := c.Run("g").Abort(t.Context(), "changed my mind\xff"); err != nil || reason != "changed my mind\uFFFD" {
		t.Error(err, reason)
	}
}

func TestStartTx(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	box := outbox.New(outbox.SQLite, &outbox.Config{Logger: quiet()})
	published := make(chan outbox.Message, 1)
	var gid string
	err := box.Tx(ctx, db, func(tx *sql.Tx) (err error) {
		gid, err = StartTx(ctx, box, tx, transfer, debitReq{"alice", 5}, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = box.Tx(ctx, db, func(tx *sql.Tx) error {
		_, err := StartTx(ctx, box, tx, transfer, debitReq{"alice", 5}, &StartConfig{GID: "a b"})
		return err
	})
	if !errors.Is(err, ErrInvalidGID) {
		t.Errorf("illegal gid: %v", err)
	}

	var asked []string
	c := client(t, &fakeCoordinator{start: func(_ context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		asked = append(asked, r.GetGid())
		return &amendsv1.StartSagaResponse{}, nil
	}})
	starter := NewStarter(c)
	relayCtx, stop := context.WithCancel(ctx)
	defer stop()
	relay := outbox.NewRelay(box, db, outbox.PublishFunc(func(ctx context.Context, m outbox.Message) error {
		published <- m
		return starter.Publish(ctx, []outbox.Message{m})[0]
	}), &outbox.RelayConfig{Logger: quiet()})
	done := make(chan error, 1)
	go func() { done <- relay.Run(relayCtx) }()
	m := receive(t, "the message", published)
	if m.Topic != StartTopic || m.Key != gid {
		t.Errorf("message %+v", m)
	}
	stop()
	receive(t, "the relay", done)
	if errs := starter.Publish(ctx, []outbox.Message{m, m}); errs[0] != nil || errs[1] != nil {
		t.Error(errs)
	}
	for _, a := range asked {
		if a != gid {
			t.Errorf("asked for %q, want %q", a, gid)
		}
	}
}

func TestStarterErrors(t *testing.T) {
	f := &fakeCoordinator{start: func(_ context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		switch r.GetGid() {
		case "conflict":
			return nil, ErrGIDConflict
		case "away":
			return nil, ErrUnavailable
		case "new":
			return nil, ErrUnknownAction
		}
		return &amendsv1.StartSagaResponse{}, nil
	}}
	message := func(gid string) outbox.Message {
		body, err := proto.Marshal(&amendsv1.StartSagaRequest{Gid: gid, Name: "transfer"})
		if err != nil {
			t.Fatal(err)
		}
		return outbox.Message{Key: gid, Body: body}
	}
	c := client(t, f)
	errs := NewStarter(c).Publish(t.Context(), []outbox.Message{
		message("fine"), message("conflict"), message("away"), {Key: "junk", Body: []byte("junk")}, message("away"), message("new"),
	})
	for i, check := range []bool{
		errs[0] == nil,
		errors.Is(errs[1], outbox.ErrPoison) && errors.Is(errs[1], ErrGIDConflict),
		!errors.Is(errs[2], outbox.ErrPoison) && errors.Is(errs[2], ErrUnavailable),
		errors.Is(errs[3], outbox.ErrPoison),
		errors.Is(errs[4], outbox.ErrHeld),
		!errors.Is(errs[5], outbox.ErrPoison) && errors.Is(errs[5], ErrUnknownAction),
	} {
		if !check {
			t.Errorf("message %d: %v", i, errs[i])
		}
	}
}

// TestWireNumbers holds the enums to being the same numbers in txn and on the
// wire.
func TestWireNumbers(t *testing.T) {
	for s := txn.Running; s <= txn.Abandoned; s++ {
		if got := "STATE_" + s.String(); got != amendsv1.State(s).String() || stateOf(amendsv1.State(s)) != s {
			t.Errorf("%s is %s", got, amendsv1.State(s))
		}
	}
	for op := txn.Do; op <= txn.Cancel; op++ {
		if got := "OP_" + strings.ToUpper(op.String()); got != amendsv1.Op(op).String() || opOf(amendsv1.Op(op)) != op {
			t.Errorf("%s is %s", got, amendsv1.Op(op))
		}
	}
	for o := txn.OK; o <= txn.Unknown; o++ {
		if got := "OUTCOME_CODE_" + strings.ToUpper(o.String()); got != wireOutcome(o).String() {
			t.Errorf("%s is %s", got, wireOutcome(o))
		}
	}
	for k := saga.Compensatable; k <= saga.Retriable; k++ {
		if got := "STEP_KIND_" + strings.ToUpper(k.String()); got != stepKinds[k].String() {
			t.Errorf("%s is %s", got, stepKinds[k])
		}
	}
}

func TestCleanText(t *testing.T) {
	s := cleanText(strings.Repeat("é", maxText))
	if len(s) > maxText+3 || !strings.HasSuffix(s, "(truncated)") || strings.ToValidUTF8(s, "") != s {
		t.Errorf("%d bytes, ends in %q", len(s), s[len(s)-30:])
	}
}
