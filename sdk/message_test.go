package sdk

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func sendTo(ctx context.Context, t *testing.T, f *fakeTCC, work func(context.Context, string) error) error {
	t.Helper()
	c := NewClient(serve(t, &f.fakeCoordinator), &ClientConfig{Logger: quiet()})
	return SendMessage(ctx, c, outbox.Message{Topic: "orders", Key: "k"}, "orders.placed", work, &MessageConfig{GID: "g"})
}

var errWork = errors.New("no stock")

// TestSendMessageAnswers: each way that the work and the decision can go has one
// answer, and nothing is decided that nobody knows.
func TestSendMessageAnswers(t *testing.T) {
	isUnknown := func(err error) bool { return errors.Is(err, ErrUnknown) && !errors.Is(err, ErrRolledBack) }
	isBack := func(err error) bool { return errors.Is(err, ErrRolledBack) && !errors.Is(err, ErrUnknown) }
	for name, c := range map[string]struct {
		fake  func(*fakeTCC)
		work  error
		want  func(error) bool
		asked string // after begin
		ran   bool
	}{
		"commits":          {nil, nil, func(err error) bool { return err == nil }, "try commit", true},
		"refuses":          {nil, Refuse(errWork), func(err error) bool { return isBack(err) && errors.Is(err, errWork) }, "try abort", true},
		"does not know":    {nil, errWork, func(err error) bool { return isUnknown(err) && errors.Is(err, errWork) }, "try", true},
		"cannot say so":    {func(f *fakeTCC) { f.commit = ErrPermission }, nil, isUnknown, "try commit", true},
		"came too late":    {func(f *fakeTCC) { f.commit = ErrDeadlinePassed; f.block = false }, nil, isUnknown, "try commit", true},
		"is refused":       {func(f *fakeTCC) { f.refuse = messageBranch }, nil, isBack, "try", false},
		"was published":    {func(f *fakeTCC) { f.state = committed }, errWork, func(err error) bool { return err == nil }, "", false},
		"is decided":       {func(f *fakeTCC) { f.state = amendsv1.State_STATE_COMMITTING }, errWork, func(err error) bool { return err == nil }, "", false},
		"was dropped":      {func(f *fakeTCC) { f.state = rollingBack }, nil, isBack, "", false},
		"was parked":       {func(f *fakeTCC) { f.state = amendsv1.State_STATE_PARKED }, nil, isUnknown, "", false},
		"was abandoned":    {func(f *fakeTCC) { f.state = amendsv1.State_STATE_ABANDONED }, nil, isUnknown, "", false},
		"in a state of ?":  {func(f *fakeTCC) { f.state = 99 }, nil, isUnknown, "", false},
		"committed anyway": {func(f *fakeTCC) { f.commit = ErrDecided; f.cause = nil }, nil, isUnknown, "try commit", true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeTCC()
			if c.fake != nil {
				c.fake(f)
			}
			ran := false
			ctx, cancel := context.WithCancel(t.Context())
			err := sendTo(ctx, t, f, func(_ context.Context, gid string) error {
				ran = gid == "g"
				cancel() // which must not keep the decision from being sent
				return c.work
			})
			if !c.want(err) {
				t.Errorf("got %v", err)
			}
			if ran != c.ran {
				t.Errorf("the work ran: %t", ran)
			}
			var asked []string
			for _, a := range f.heard()[1:] {
				asked = append(asked, strings.Fields(a)[0])
			}
			if got := strings.Join(asked, " "); got != c.asked {
				t.Errorf("asked %q, want %q", got, c.asked)
			}
		})
	}
}

// TestSendMessagePanics: the panic goes on, and nothing is decided.
func TestSendMessagePanics(t *testing.T) {
	f := newFakeTCC()
	defer func() {
		if v := recover(); v != "ouch" || len(f.heard()) != 2 {
			t.Errorf("recovered %v, asked %q", v, f.heard())
		}
	}()
	err := sendTo(t.Context(), t, f, func(context.Context, string) error { panic("ouch") })
	t.Errorf("no panic: %v", err)
}

// TestSendMessageAgain: two calls under one gid. The one that comes second has
// no longer than the first before the check is asked; and one whose message the
// coordinator does not take, as the other's was prepared, decides nothing: the
// other's work may have committed.
func TestSendMessageAgain(t *testing.T) {
	f, until := newFakeTCC(), time.Now().Add(10*time.Second)
	created := false
	f.begin = func(context.Context, *amendsv1.BeginTccRequest) (*amendsv1.BeginTccResponse, error) {
		begun := tx(running, nil)
		begun.Deadline = timestamppb.New(until)
		return &amendsv1.BeginTccResponse{Transaction: begun, Created: created}, nil
	}
	err := sendTo(t.Context(), t, f, func(ctx context.Context, _ string) error {
		if d, ok := ctx.Deadline(); !ok || !d.Equal(until) {
			t.Errorf("the work has until %v, want %v", d, until)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	f, created = newFakeTCC(), true
	f.begin = func(context.Context, *amendsv1.BeginTccRequest) (*amendsv1.BeginTccResponse, error) {
		return &amendsv1.BeginTccResponse{Transaction: tx(running, nil), Created: true}, nil
	}
	f.try = func(context.Context, *amendsv1.TryBranchRequest) (*amendsv1.TryBranchResponse, error) {
		return nil, ErrBranchConflict
	}
	err = sendTo(t.Context(), t, f, func(context.Context, string) error { t.Error("works"); return nil })
	if !errors.Is(err, ErrUnknown) || errors.Is(err, ErrRolledBack) || len(f.heard()) > 0 {
		t.Errorf("got %v, asked %q; want unknown, and nothing decided", err, f.heard())
	}
}

// TestSendMessageRefusesMistakes before anything is begun, all at once.
func TestSendMessageRefusesMistakes(t *testing.T) {
	f := newFakeTCC()
	c := NewClient(serve(t, &f.fakeCoordinator), nil)
	m := outbox.Message{Topic: "a topic", Key: "\xff", ID: "a\x00b", NotBefore: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC),
		Headers: map[string]string{"": "", "h": "\xff", "amends-not-before": "1"}}
	err := SendMessage(t.Context(), c, m, "check", nil, &MessageConfig{GID: "a b", Timeout: -time.Second, EndTimeout: -1})
	for _, want := range []string{"work is nil", "EndTimeout", "check.action", "timeout is -1s", "gid", "Topic", "Key", "ID", "without a name", `value of "h"`, `"amends-not-before"`, "NotBefore is"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not name %q", err, want)
		}
	}
	if err := SendMessage(t.Context(), nil, m, "", nil, nil); err == nil {
		t.Error("no client is no mistake")
	}
	if len(f.heard()) > 0 {
		t.Errorf("asked %q", f.heard())
	}
}

// TestMessageTravelsWhole: whatever a message has or will have, a delay for
// example, reaches the courier's outbox.
func TestMessageTravelsWhole(t *testing.T) {
	var m outbox.Message
	v := reflect.ValueOf(&m).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case string:
			f.SetString("ü" + v.Type().Field(i).Name)
		case []byte:
			f.SetBytes([]byte{0xff, 0})
		case bool:
			f.SetBool(true)
		case map[string]string:
			f.Set(reflect.ValueOf(map[string]string{"h": "v"}))
		case time.Time:
			f.Set(reflect.ValueOf(time.Unix(7, 8000).UTC()))
		case time.Duration:
			f.SetInt(7)
		default:
			t.Errorf("field %s is a %s: see that it travels", v.Type().Field(i).Name, f.Type())
		}
	}
	data, err := Publish.Codec().Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got outbox.Message
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v became %+v: %v", m, got, err)
	}
}

// TestCheckAnswers: what a check says, and what else may be asked of it.
func TestCheckAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		op     amendsv1.Op
		result CheckResult
		err    error
		want   txn.Outcome
	}{
		"committed":             {amendsv1.Op_OP_CHECK, CheckCommitted, nil, txn.OK},
		"rolled back":           {amendsv1.Op_OP_CHECK, CheckRolledBack, nil, txn.Refused},
		"unknown":               {amendsv1.Op_OP_CHECK, CheckUnknown, nil, txn.Unknown},
		"no such result":        {amendsv1.Op_OP_CHECK, 99, nil, txn.Unknown},
		"an error":              {amendsv1.Op_OP_CHECK, CheckCommitted, errWork, txn.Unknown},
		"a refusal":             {amendsv1.Op_OP_CHECK, CheckRolledBack, Refuse(errWork), txn.Unknown},
		"a try is no check":     {amendsv1.Op_OP_TRY, CheckCommitted, nil, txn.Refused},
		"nothing is to confirm": {amendsv1.Op_OP_CONFIRM, CheckCommitted, nil, txn.Refused},
		"nothing is to cancel":  {amendsv1.Op_OP_CANCEL, CheckRolledBack, nil, txn.OK},
		"nothing is to undo":    {amendsv1.Op_OP_UNDO, CheckRolledBack, nil, txn.OK},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewChecker("orders", &ParticipantConfig{Logger: quiet()})
			HandleCheck(p, "orders.placed", func(ctx context.Context, gid string) (CheckResult, error) {
				if info, ok := Info(ctx); !ok || gid != "g" || info.Attempt != 3 {
					t.Errorf("gid %q, %+v", gid, info)
				}
				return c.result, c.err
			})
			out := p.answer(t.Context(), p.newCall(&amendsv1.Call{Gid: "g", Index: -1, Op: c.op, Action: "orders.placed", Attempt: 3}))
			if out.GetCode() != wireOutcome(c.want) || out.GetIndex() != -1 {
				t.Errorf("%v, want %v", out, c.want)
			}
		})
	}
}

// TestCheckOfAnotherAction: an action that is no check cannot tell.
func TestCheckOfAnotherAction(t *testing.T) {
	p := NewParticipant("accounts", database(t), outbox.SQLite, &ParticipantConfig{Logger: quiet()})
	HandleSaga(p, saga.NewAction[int, int]("accounts.debit"), func(context.Context, *sql.Tx, int) (int, error) { return 0, nil }, nil)
	out := p.answer(t.Context(), p.newCall(&amendsv1.Call{Gid: "g", Index: -1, Op: amendsv1.Op_OP_CHECK, Action: "accounts.debit"}))
	if out.GetCode() != wireOutcome(txn.Unknown) {
		t.Errorf("%v", out)
	}
}

// TestCheckerHasNoDatabase, so it takes nothing else.
func TestCheckerHasNoDatabase(t *testing.T) {
	for name, wrong := range map[string]func(p *Participant){
		"no database": func(p *Participant) {
			HandleSaga(p, saga.NewAction[int, int]("orders.do"), func(context.Context, *sql.Tx, int) (int, error) { return 0, nil }, nil)
		},
		"check is nil": func(p *Participant) { HandleCheck(p, "orders.placed", nil) },
		"belongs to service": func(p *Participant) {
			HandleCheck(p, "other.placed", func(context.Context, string) (CheckResult, error) { return 0, nil })
		},
	} {
		func() {
			defer func() {
				if v, _ := recover().(string); !strings.Contains(v, name) {
					t.Errorf("panic %q, want %q", v, name)
				}
			}()
			wrong(NewChecker("orders", nil))
		}()
	}
	defer func() {
		if v, _ := recover().(string); !strings.Contains(v, `NewChecker("a b")`) {
			t.Errorf("panic %q", v)
		}
	}()
	NewChecker("a b", nil)
}

// TestKeyFull: no more wait behind an undecided message than there may be.
func TestKeyFull(t *testing.T) {
	db := database(t)
	c := NewCourier(outbox.New(outbox.SQLite, nil), db, nil)
	if err := errors.Join(c.Migrate(t.Context()), c.Migrate(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO amends_courier (gid, branch, msg_key) SELECT i, i, ? FROM n`, maxPlaces, c.placeKey("full")); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]error{"full": ErrKeyFull, "other": nil, "": nil} {
		m := outbox.Message{Topic: "orders", Key: key}
		err := outbox.InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
			_, err := c.prepare(context.WithValue(t.Context(), callKey{}, &call{info: CallInfo{GID: "g"}}), tx, m)
			return err
		})
		var refused *RefusedError
		if !errors.Is(err, want) || want != nil && !errors.As(err, &refused) {
			t.Errorf("key %q: %v, want %v", key, err, want)
		}
	}
	if _, err := c.prepare(t.Context(), nil, outbox.Message{}); err == nil {
		t.Error("a message without a topic has a place")
	}
}

// TestReleaseKeepsTheOrder: a message for which many wait lets all of them go, in
// their order, each in the trace of its own transaction.
func TestReleaseKeepsTheOrder(t *testing.T) {
	db, box := database(t), outbox.New(outbox.SQLite, nil)
	c := NewCourier(box, db, nil)
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const waiting = 2*releaseRows + 7
	as := func(i int, do func(context.Context, *sql.Tx, outbox.Message) error) {
		t.Helper()
		id := fmt.Sprintf("g%03d", i)
		ctx := context.WithValue(t.Context(), callKey{}, &call{info: CallInfo{GID: id}})
		ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{byte(i + 1)}, SpanID: trace.SpanID{1}}))
		err := outbox.InTx(ctx, db, nil, func(tx *sql.Tx) error {
			return do(ctx, tx, outbox.Message{Topic: "orders", Key: "k", ID: id})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	publish := func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		return c.publish(ctx, tx, m, struct{}{})
	}
	for i := range waiting + 1 {
		as(i, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
			_, err := c.prepare(ctx, tx, m)
			return err
		})
	}
	for i := waiting; i >= 0; i-- {
		as(i, publish)
	}
	next := 0
	for part := range outbox.Partitions { // one of them has the key
		rows, err := db.QueryContext(t.Context(), fmt.Sprintf("SELECT msg_id, headers FROM amends_outbox_%d ORDER BY id", part))
		if err != nil {
			t.Fatal(err)
		}
		for ; rows.Next(); next++ {
			var id, headers string
			if err := rows.Scan(&id, &headers); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("g%03d", next); id != want || !strings.Contains(headers, fmt.Sprintf("00-%02x00", next+1)) {
				t.Errorf("%s follows, with %s; want %s, with its own trace", id, headers, want)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if next != waiting+1 {
		t.Errorf("%d in the outbox, want %d", next, waiting+1)
	}
}
