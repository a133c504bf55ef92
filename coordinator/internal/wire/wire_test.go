package wire_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// enum checks a table both ways over every number that a byte holds and every
// value that the wire knows.
func enum[A comparable, B interface {
	comparable
	protoreflect.Enum
}](t *testing.T, ours []A, to func(A) B, from func(B) (A, bool), unspecified func() (A, bool)) {
	t.Helper()
	var zero B
	values := zero.Descriptor().Values()
	if values.Len() != len(ours)+1 {
		t.Errorf("%v has %d values beside UNSPECIFIED, we have %d", zero.Descriptor().FullName(), values.Len()-1, len(ours))
	}
	seen := map[B]bool{}
	for _, a := range ours {
		b := to(a)
		if b == zero || seen[b] || values.ByNumber(b.Number()) == nil {
			t.Errorf("%v becomes %v", a, b)
		}
		seen[b] = true
		if back, ok := from(b); !ok || back != a {
			t.Errorf("%v became %v and then %v, %v", a, b, back, ok)
		}
	}
	if got, ok := from(zero); func() bool { w, wok := unspecified(); return got != w || ok != wok }() {
		t.Errorf("UNSPECIFIED becomes %v, %v", got, ok)
	}
}

func none[A any]() (A, bool) { var zero A; return zero, false }

// valid lists the values of a type of small numbers, by its own judgement.
func valid[A ~uint8](ok func(A) bool) []A {
	var all []A
	for n := range 256 {
		if ok(A(n)) {
			all = append(all, A(n))
		}
	}
	return all
}

func TestEnums(t *testing.T) {
	enum(t, valid(txn.State.Valid), wire.State, wire.FromState, none)
	enum(t, []string{"saga", "tcc"}, wire.Kind, wire.FromKind, none)
	enum(t, valid(saga.Kind.Valid), wire.StepKind, wire.FromStepKind, func() (saga.Kind, bool) { return saga.Compensatable, true })
	enum(t, valid(txn.Op.Valid), wire.Op, wire.FromOp, none)
	enum(t, valid(txn.Outcome.Valid), wire.Outcome, wire.FromOutcome, none)
	enum(t, []txn.State{txn.Running, txn.Committed, txn.RolledBack}, wire.BulkState, wire.FromBulkState, none)
	if wire.State(0) != 0 || wire.State(99) != 0 || wire.Kind("x") != 0 || wire.StepKind(99) != 0 || wire.Op(0) != 0 || wire.Outcome(0) != 0 {
		t.Error("what is none of ours must become UNSPECIFIED")
	}
	for _, known := range []bool{ok(wire.FromState(99)), ok(wire.FromKind(99)), ok(wire.FromStepKind(99)), ok(wire.FromOp(99)), ok(wire.FromOutcome(99))} {
		if known {
			t.Error("a number that the wire does not know was taken")
		}
	}
}

func ok[A any](_ A, known bool) bool { return known }

// Names are the same on both sides but for the prefix: filters use ours.
func TestStateNames(t *testing.T) {
	for _, s := range valid(txn.State.Valid) {
		if got := wire.State(s).String(); got != "STATE_"+s.String() {
			t.Errorf("%v is %s on the wire", s, got)
		}
	}
}

func TestRetry(t *testing.T) {
	for _, r := range []txn.Retry{
		{}, txn.Retry{}.WithDefaults(), {Attempts: 1}, {Jitter: -1}, {CallTimeout: time.Nanosecond},
		{Initial: math.MaxInt64, Factor: 1.5, Cap: math.MaxInt64, Attempts: 1<<31 - 1},
	} {
		got, err := wire.FromRetry(wire.Retry(r))
		if err != nil || got != r {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
	if wire.Retry(txn.Retry{}) != nil {
		t.Error("the defaults need no message")
	}
	_, err := wire.FromRetry(&amendsv1.RetryPolicy{
		Initial: &durationpb.Duration{Seconds: 1, Nanos: -1}, Cap: &durationpb.Duration{Seconds: 1 << 36},
		CallTimeout: &durationpb.Duration{Seconds: 10_000_000_000}, Jitter: math.Inf(-1),
	})
	wants(t, err, "retry.initial", "retry.cap", "retry.call_timeout is 10000000000 s", "retry.jitter")
}

func wants(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}

func step(name string, after ...string) *amendsv1.SagaStep {
	return &amendsv1.SagaStep{Name: name, Action: "svc." + name, After: after}
}

func TestSagaDefinition(t *testing.T) {
	pivot := step("pay", "reserve", "check")
	pivot.Kind, pivot.Payload = amendsv1.StepKind_STEP_KIND_PIVOT, []byte("p")
	pivot.Retry = &amendsv1.RetryPolicy{Attempts: 3}
	got, err := wire.SagaDefinition(&amendsv1.StartSagaRequest{
		Name: "order", Timeout: durationpb.New(time.Hour), Steps: []*amendsv1.SagaStep{step("reserve"), step("check"), pivot},
	})
	want := &saga.Definition{Name: "order", Timeout: time.Hour, Steps: []saga.Step{
		{Name: "reserve", Action: "svc.reserve"}, {Name: "check", Action: "svc.check"},
		{Name: "pay", Action: "svc.pay", Payload: []byte("p"), After: []int{0, 1}, Kind: saga.Pivot, Retry: txn.Retry{Attempts: 3}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBadSagaDefinitions(t *testing.T) {
	odd := step("a")
	odd.Kind = 9
	slow := step("b")
	slow.Retry = &amendsv1.RetryPolicy{Initial: &durationpb.Duration{Nanos: 1, Seconds: -1}}
	negative := step("c")
	negative.Retry = &amendsv1.RetryPolicy{Attempts: -1}
	many := make([]*amendsv1.SagaStep, saga.MaxSteps+1)
	for name, c := range map[string]struct {
		steps   []*amendsv1.SagaStep
		timeout *durationpb.Duration
		want    []string
	}{
		"no steps":         {nil, nil, []string{"steps"}},
		"cycle":            {[]*amendsv1.SagaStep{step("a", "b"), step("b", "a")}, nil, []string{`steps[0] "a"`, `"b"`, "cycle"}},
		"itself":           {[]*amendsv1.SagaStep{step("a", "a")}, nil, []string{`steps[0] "a"`, "itself", "cycle"}},
		"unknown":          {[]*amendsv1.SagaStep{step("a"), step("b", "x")}, nil, []string{`steps[1] "b"`, `"x"`, "no step"}},
		"duplicate":        {[]*amendsv1.SagaStep{step("a"), step("a")}, nil, []string{`"a"`}},
		"too many":         {many, nil, []string{"257", "256"}},
		"nil step":         {[]*amendsv1.SagaStep{nil}, nil, []string{"name"}},
		"kind":             {[]*amendsv1.SagaStep{odd}, nil, []string{`"a"`, "kind 9"}},
		"all of them":      {[]*amendsv1.SagaStep{odd, slow, step("z", "y")}, durationpb.New(-1), []string{"timeout", "kind 9", "retry.initial", `"y"`}},
		"attempts":         {[]*amendsv1.SagaStep{negative}, nil, []string{"retry.attempts", `"c"`}},
		"zero timeout":     {[]*amendsv1.SagaStep{step("a")}, durationpb.New(0), []string{"timeout is 0s", "positive"}},
		"long timeout":     {[]*amendsv1.SagaStep{step("a")}, durationpb.New(wire.MaxTimeout + 1), []string{"timeout"}},
		"impossibly long":  {[]*amendsv1.SagaStep{step("a")}, &durationpb.Duration{Seconds: 1 << 34}, []string{"timeout"}},
		"bad action names": {[]*amendsv1.SagaStep{{Name: "a", Action: "debit"}}, nil, []string{"action"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := wire.SagaDefinition(&amendsv1.StartSagaRequest{Name: "s", Steps: c.steps, Timeout: c.timeout})
			wants(t, err, c.want...)
			if !errors.Is(err, amendsv1.ErrInvalidDefinition) {
				t.Errorf("%v is no ErrInvalidDefinition", err)
			}
		})
	}
}

func TestTCC(t *testing.T) {
	d, err := wire.TCCDefinition(&amendsv1.BeginTccRequest{Name: "trip"})
	if err != nil || *d != (tcc.Definition{Name: "trip", Timeout: time.Minute}) {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = wire.TCCDefinition(&amendsv1.BeginTccRequest{Name: "a b", Timeout: durationpb.New(0)})
	wants(t, err, "timeout")
	_, err = wire.TCCDefinition(&amendsv1.BeginTccRequest{Name: "a b"})
	wants(t, err, "name", "space")
	if !errors.Is(err, amendsv1.ErrInvalidDefinition) {
		t.Error(err)
	}
	b, err := wire.TCCBranch(&amendsv1.TryBranchRequest{Branch: "seat", Action: "flights.seat", Payload: []byte("x"), Retry: &amendsv1.RetryPolicy{Attempts: 2}})
	if want := (tcc.Branch{Name: "seat", Action: "flights.seat", Payload: []byte("x"), Retry: txn.Retry{Attempts: 2}}); err != nil || !reflect.DeepEqual(b, want) {
		t.Errorf("%+v, %v", b, err)
	}
	_, err = wire.TCCBranch(&amendsv1.TryBranchRequest{Branch: "", Action: "seat", Retry: &amendsv1.RetryPolicy{Attempts: -2}})
	wants(t, err, "name is empty", "action", "retry.attempts")
	if !errors.Is(err, amendsv1.ErrInvalidArgument) {
		t.Error(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var at = time.Date(2026, 11, 23, 1, 2, 3, 4000, time.UTC)

func sagaRecord() store.Record {
	d := &saga.Definition{Name: "order", Steps: []saga.Step{
		{Name: "reserve", Action: "stock.reserve", Payload: []byte(`{"n":1}`)},
		{Name: "pay", Action: "cards.pay", Payload: []byte(`{}`), After: []int{0}, Kind: saga.Pivot},
	}}
	s := saga.New(d)
	s = must(s.Advance(d, txn.Replied{Branch: 0, Op: txn.Do, Attempt: 1, Outcome: txn.OK, Reply: []byte("r")}))
	s = must(s.Advance(d, txn.Replied{Branch: 1, Op: txn.Do, Attempt: 1, Outcome: txn.Unknown, Message: "lost"}))
	return store.Record{
		GID: "A-17", Kind: "saga", Name: "order", State: uint8(s.Phase), Version: 3, Paused: true,
		Definition: must(d.Encode()), Body: must(s.Encode()), Labels: map[string]string{"order_id": "A-17"},
		CreatedAt: at, UpdatedAt: at.Add(time.Second), Deadline: at.Add(time.Hour), NextAt: at.Add(time.Minute),
	}
}

func TestSagaTransaction(t *testing.T) {
	got := must(wire.Transaction(sagaRecord(), true, true))
	if got.Gid != "A-17" || got.Kind != amendsv1.Kind_KIND_SAGA || got.Name != "order" || got.State != amendsv1.State_STATE_RUNNING ||
		!got.Paused || got.Etag != "3" || got.Cause != nil || got.Labels["order_id"] != "A-17" ||
		!got.CreateTime.AsTime().Equal(at) || !got.UpdateTime.AsTime().Equal(at.Add(time.Second)) || got.FinishTime != nil ||
		!got.Deadline.AsTime().Equal(at.Add(time.Hour)) || !got.NextTime.AsTime().Equal(at.Add(time.Minute)) {
		t.Errorf("%v", got)
	}
	want := []*amendsv1.Branch{
		{Name: "reserve", Action: "stock.reserve", Phase: "DONE", Attempt: 1, Kind: amendsv1.StepKind_STEP_KIND_COMPENSATABLE,
			Request: []byte(`{"n":1}`), Reply: []byte("r")},
		{Name: "pay", Action: "cards.pay", Phase: "DOING", Attempt: 2, Error: "lost", After: []string{"reserve"},
			Kind: amendsv1.StepKind_STEP_KIND_PIVOT, Request: []byte(`{}`)},
	}
	same(t, got.Branches, want)
	for _, b := range want {
		b.Request, b.Reply = nil, nil
	}
	same(t, must(wire.Transaction(sagaRecord(), false, true)).Branches, want)
	same(t, must(wire.Transaction(sagaRecord(), true, false)).Branches, nil)
}

func same(t *testing.T, got, want []*amendsv1.Branch) {
	t.Helper()
	if !proto.Equal(&amendsv1.Transaction{Branches: got}, &amendsv1.Transaction{Branches: want}) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestTCCTransaction(t *testing.T) {
	d := &tcc.Definition{Name: "trip", Timeout: time.Minute}
	s := must(tcc.New(d).Advance(d, tcc.Try{Branch: tcc.Branch{Name: "seat", Action: "flights.seat", Payload: []byte("p")}}))
	s = must(s.Advance(d, txn.Replied{Branch: 0, Op: txn.Try, Attempt: 1, Outcome: txn.Refused, Message: "full"}))
	got := must(wire.Transaction(store.Record{
		GID: "g", Kind: "tcc", State: uint8(s.Phase), Reason: s.Cause.String(), Definition: must(d.Encode()), Body: must(s.Encode()),
	}, true, true))
	same(t, got.Branches, []*amendsv1.Branch{{Name: "seat", Action: "flights.seat", Phase: "CANCELLING", Attempt: 1, Error: "full", Request: []byte("p")}})
	if want := (&amendsv1.Cause{Branch: "seat", Code: "REFUSED", Message: "full"}); !proto.Equal(got.Cause, want) || got.Kind != amendsv1.Kind_KIND_TCC {
		t.Errorf("%v", got)
	}
}

func TestUndecodableTransaction(t *testing.T) {
	for name, spoil := range map[string]func(*store.Record){
		"definition": func(r *store.Record) { r.Definition = []byte("{") },
		"state":      func(r *store.Record) { r.Body = nil },
		"kind":       func(r *store.Record) { r.Kind = "xa" },
	} {
		rec := sagaRecord()
		spoil(&rec)
		_, err := wire.Transaction(rec, false, true)
		wants(t, err, `"A-17"`, name)
		must(wire.Transaction(rec, false, false)) // a list shows it all the same
	}
}

// Whatever a record holds, its message can be sent.
func TestAnyBytesMarshal(t *testing.T) {
	rec := store.Record{GID: "g\xff", Name: "\xfe", Reason: "step \"\xfd\": REFUSED: \xfc", Labels: map[string]string{"\xfb": "\xfa"}}
	tx := must(wire.Transaction(rec, false, false))
	must(proto.Marshal(tx))
	if tx.Gid != `g\xff` || !strings.Contains(tx.Cause.Message, `\xfc`) {
		t.Errorf("%v", tx)
	}
	for _, data := range []string{"", "null", "{}", "[]", "\xff", `{"message":"` + "\xff" + `","a":[1,{"b":null}]}`, `{"n":1e999}`} {
		ev := wire.Event(store.Event{GID: "\xff", Type: "\xff", Data: []byte(data)})
		must(proto.Marshal(ev))
		if string(ev.Data) != data {
			t.Errorf("data %q became %q", data, ev.Data)
		}
	}
}

func TestEvent(t *testing.T) {
	got := wire.Event(store.Event{GID: "g", Seq: 2, At: at, Type: "replied", Data: []byte(`{"branch":"debit","attempt":1}`), Prev: []byte{1}, Hash: []byte{2}})
	fields := got.Detail.AsMap()
	if got.Gid != "g" || got.Seq != 2 || !got.Time.AsTime().Equal(at) || got.Type != "replied" || fields["branch"] != "debit" ||
		fields["attempt"] != 1.0 || string(got.PrevHash) != "\x01" || string(got.Hash) != "\x02" {
		t.Errorf("%v", got)
	}
	if bad := wire.Event(store.Event{Data: []byte("[1]")}); !strings.Contains(bad.Detail.AsMap()["data_error"].(string), "JSON object") {
		t.Errorf("%v", bad)
	}
}

func FuzzParseReason(f *testing.F) {
	f.Add("debit", "no money")
	f.Add("", "")
	f.Add("a\": REFUSED: \"b", ": ABORTED: x")
	f.Add("\xff\n", "step \"x\": REFUSED")
	f.Fuzz(func(t *testing.T, branch, message string) {
		for _, code := range []string{txn.CodeRefused, txn.CodeExhausted, txn.CodeDeadline, txn.CodeAborted, txn.CodeAbandoned} {
			r := txn.Reason{Branch: branch, Code: code, Message: message}
			if got := wire.ParseReason(r.String()); got != r {
				t.Errorf("%+v became %+v through %q", r, got, r.String())
			}
		}
		wire.ParseReason(message) // never panics
	})
}

func TestReasonsOfOtherShapes(t *testing.T) {
	for _, s := range []string{"out of order", `step "a: REFUSED`, `step "a"REFUSED`, `step x: REFUSED`, `step "a": LOST: x`} {
		if got := wire.ParseReason(s); got != (txn.Reason{Message: s}) {
			t.Errorf("%q became %+v", s, got)
		}
	}
}
