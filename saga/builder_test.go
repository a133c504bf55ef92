package saga_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

type amount struct{ Cents int }

var (
	debit  = saga.NewAction[amount, string]("accounts.debit")
	credit = saga.NewAction[amount, string]("accounts.credit").WithRetry(saga.Retry{Attempts: 9, Initial: time.Second})
	broken = saga.NewAction[chan int, string]("accounts.broken")
)

func TestBuild(t *testing.T) {
	def := saga.Define("transfer", func(b *saga.Builder, cents int) {
		b.Timeout(time.Minute)
		b.Step("debit", debit.With(amount{cents}))
		b.Step("fee", debit.With(amount{1})).After().Attempts(2).CallTimeout(time.Second)
		b.Step("credit", credit.With(amount{cents})).After("debit", "fee").Pivot().Attempts(3)
		b.Step("mail", credit.With(amount{cents})).Retriable().Retry(saga.Retry{Cap: time.Hour})
	})
	if def.Name() != "transfer" {
		t.Errorf("name is %q", def.Name())
	}
	got, err := def.Build(500)
	if err != nil {
		t.Fatal(err)
	}
	want := &saga.Definition{Name: "transfer", Timeout: time.Minute, Steps: []saga.Step{
		{Name: "debit", Action: "accounts.debit", Payload: []byte(`{"Cents":500}`)},
		{Name: "fee", Action: "accounts.debit", Payload: []byte(`{"Cents":1}`),
			Retry: saga.Retry{Attempts: 2, CallTimeout: time.Second}},
		{Name: "credit", Action: "accounts.credit", Payload: []byte(`{"Cents":500}`), After: []int{0, 1},
			Kind: saga.Pivot, Retry: saga.Retry{Attempts: 3, Initial: time.Second}},
		{Name: "mail", Action: "accounts.credit", Payload: []byte(`{"Cents":500}`), After: []int{2},
			Kind: saga.Retriable, Retry: saga.Retry{Cap: time.Hour}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	data, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := saga.DecodeDefinition(data); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("decoded %+v, %v", again, err)
	}
}

// TestBuildMistakes: every mistake is told, not only the first.
func TestBuildMistakes(t *testing.T) {
	def := saga.Define("trans fer", func(b *saga.Builder, _ int) {
		b.Step("a", debit.With(amount{})).After("b").Attempts(-1)
		b.Step("b", broken.With(nil)).After("b")
		b.Step("c", saga.Request{}).Pivot().Retriable()
		b.Step("c", debit.With(amount{}))
	})
	_, err := def.Build(0)
	wantErr(t, err,
		`name "trans fer" holds a space`,
		`step 0 "a": after names "b", which is no earlier step`,
		`step 0 "a": retry.attempts is -1`,
		`step 1 "b": action "accounts.broken": encode the request`,
		`step 1 "b": after names "b", which is no earlier step`,
		`step 2 "c": kind is both pivot and retriable`,
		`step 2 "c": action is empty`,
		`step 3 "c": name is taken by step 2`,
	)
	_, err = saga.Define("notes", func(b *saga.Builder, _ int) {
		b.Step("write", debit.With(amount{}))
		b.Step("send", credit.With(amount{})).Retriable()
	}).Build(0)
	wantErr(t, err, `step 1 "send": kind is retriable, but it does not come after a pivot`)
	_, err = saga.Define("notes", func(b *saga.Builder, _ int) {
		b.Step("send", credit.With(amount{})).Retriable()
		b.Step("write", debit.With(amount{})).After().Pivot()
		b.Step("tell", credit.With(amount{})).Retriable()
	}).Build(0)
	wantErr(t, err, `step 0 "send": kind is retriable, but it does not come after a pivot`)
	_, err = saga.Define("empty", func(*saga.Builder, int) {}).Build(0)
	wantErr(t, err, "steps is empty")
	_, err = saga.Define[int]("none", nil).Build(0)
	wantErr(t, err, "has no function")
}

type failing struct{ txn.JSON }

func (failing) Marshal(any) ([]byte, error) { return nil, errors.New("no ink") }

func TestAction(t *testing.T) {
	if debit.WithCodec(nil).Codec() != (txn.JSON{}) || (saga.Action[int, int]{}).Codec() != (txn.JSON{}) {
		t.Error("the default codec is not JSON")
	}
	if debit.WithCodec(failing{}).Codec() != (failing{}) || debit.Codec() != (txn.JSON{}) {
		t.Error("WithCodec changed the action that it was called on, or nothing")
	}
	if credit.Retry().Attempts != 9 || credit.Name() != "accounts.credit" {
		t.Errorf("got %+v", credit)
	}
	_, err := saga.Define("s", func(b *saga.Builder, _ int) {
		b.Step("a", debit.WithCodec(failing{}).With(amount{}))
	}).Build(0)
	wantErr(t, err, "no ink")
	defer func() {
		if recover() == nil {
			t.Error("NewAction took an action with no service")
		}
	}()
	saga.NewAction[int, int]("debit")
}
