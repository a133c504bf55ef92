package tcc_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

func TestInvalidDefinition(t *testing.T) {
	for want, d := range map[string]tcc.Definition{
		"name is empty":          {Timeout: 1},
		"holds a space":          {Name: "a b", Timeout: 1},
		"timeout is 0s":          {Name: "a"},
		"timeout is -1s":         {Name: "a", Timeout: -time.Second},
		"timeout is 0s, want mo": {Name: ""},
		"check.action":           {Name: "a", Timeout: 1, Check: tcc.CheckBack{Action: "a"}},
		"retry.initial":          {Name: "a", Timeout: 1, Check: tcc.CheckBack{Action: "s.a", Retry: tcc.Retry{Initial: -1}}},
	} {
		if err := d.Validate(); !errors.Is(err, tcc.ErrInvalidDefinition) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", d, err, want)
		}
		data, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tcc.DecodeDefinition(data); !errors.Is(err, tcc.ErrInvalidDefinition) {
			t.Errorf("decode: got %v", err)
		}
	}
	for _, data := range []string{`{`, `{"name":"a","timeout":1} x`, `{"name":"a","timeout":1,"x":1}`, `null`} {
		if _, err := tcc.DecodeDefinition([]byte(data)); err == nil {
			t.Errorf("%s: taken", data)
		}
	}
}

func TestInvalidBranch(t *testing.T) {
	s := tcc.New(simDef)
	for want, b := range map[string]tcc.Branch{
		"name is empty":       {Action: "s.a"},
		"names no service":    {Name: "b", Action: "a"},
		"retry.attempts is -": {Name: "b", Action: "s.a", Retry: tcc.Retry{Attempts: -1}},
	} {
		_, err := s.Advance(simDef, tcc.Try{Branch: b})
		if !errors.Is(err, tcc.ErrInvalidBranch) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", b, err, want)
		}
	}
}

func TestTooManyBranches(t *testing.T) {
	s := tcc.New(simDef)
	for i := range tcc.MaxBranches + 1 {
		next, err := s.Advance(simDef, tcc.Try{Branch: tcc.Branch{Name: fmt.Sprint("b", i), Action: "s.a"}})
		if i == tcc.MaxBranches {
			if !errors.Is(err, tcc.ErrTooManyBranches) {
				t.Errorf("got %v, want ErrTooManyBranches", err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	if n := len(s.Outstanding(simDef)); n != tcc.MaxBranches {
		t.Errorf("%d calls are outstanding", n)
	}
}

func TestDecodeStateRefuses(t *testing.T) {
	branch := func(rest string) string { return `{"name":"b","action":"s.a",` + rest + `}` }
	for name, data := range map[string]string{
		"not JSON":      `{`,
		"newer version": `{"v":4,"phase":"RUNNING"}`,
		"no version":    `{"phase":"RUNNING"}`,
		"unknown field": `{"v":1,"phase":"RUNNING","x":1}`,
		"unknown state": `{"v":1,"phase":"DREAMING"}`,
		"unknown phase": `{"v":1,"phase":"RUNNING","branches":[` + branch(`"phase":"RESTING","attempt":1`) + `]}`,
		"no phase":      `{"v":1,"phase":"RUNNING","branches":[` + branch(`"attempt":1`) + `]}`,
		"attempt 0":     `{"v":1,"phase":"RUNNING","branches":[` + branch(`"phase":"TRYING","attempt":0`) + `]}`,
		"name twice": `{"v":1,"phase":"RUNNING","branches":[` + branch(`"phase":"TRYING","attempt":1`) + `,` +
			branch(`"phase":"TRYING","attempt":1`) + `]}`,
		"bad branch":            `{"v":1,"phase":"RUNNING","branches":[{"name":"b","action":"a","phase":"TRYING","attempt":1}]}`,
		"no decision":           `{"v":1,"phase":"COMMITTED"}`,
		"decided":               `{"v":1,"phase":"RUNNING","decision":"COMMITTING"}`,
		"bad decision":          `{"v":1,"phase":"PARKED","decision":"PARKED"}`,
		"no cause":              `{"v":1,"phase":"ROLLED_BACK","decision":"ROLLING_BACK"}`,
		"nothing to do":         `{"v":1,"phase":"COMMITTING","decision":"COMMITTING"}`,
		"checks and decided":    `{"v":3,"phase":"COMMITTED","decision":"COMMITTING","checking":{"attempt":1}}`,
		"checks and tries":      `{"v":3,"phase":"RUNNING","checking":{"attempt":1},"branches":[` + branch(`"phase":"TRYING","attempt":1`) + `]}`,
		"check 0":               `{"v":3,"phase":"RUNNING","checking":{"attempt":0}}`,
		"abandoned for nothing": `{"v":1,"phase":"ABANDONED"}`,
		"skipped too early":     `{"v":2,"phase":"RUNNING","branches":[` + branch(`"phase":"SKIPPED","attempt":1`) + `]}`,
		"half committed":        `{"v":1,"phase":"COMMITTED","decision":"COMMITTING","branches":[` + branch(`"phase":"TRIED","attempt":1`) + `]}`,
	} {
		if _, err := tcc.DecodeState(simDef, []byte(data)); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// A state keeps a long or garbled error visibly cut, and is stored.
func TestErrorIsClipped(t *testing.T) {
	s, err := tcc.New(simDef).Advance(simDef, tcc.Try{Branch: tcc.Branch{Name: "b", Action: "s.a"}})
	if err != nil {
		t.Fatal(err)
	}
	long := "\xff" + strings.Repeat("é", 5000)
	s, err = s.Advance(simDef, txn.Replied{Op: txn.Try, Attempt: 1, Outcome: txn.Refused, Message: long})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Cause.Message; len(got) > tcc.MaxError || !strings.Contains(got, "truncated") {
		t.Errorf("%d bytes: …%s", len(got), got[len(got)-50:])
	}
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tcc.DecodeState(simDef, data); err != nil || again.Cause.Message != s.Cause.Message {
		t.Errorf("not as it was: %v", err)
	}
}

type codec struct{ txn.JSON }

func TestAction(t *testing.T) {
	a := tcc.NewAction[int, string]("flights.seat")
	b := a.WithCodec(codec{}).WithRetry(tcc.Retry{Attempts: 3})
	if a.Name() != "flights.seat" || a.Codec() != (txn.JSON{}) || a.Retry() != (tcc.Retry{}) {
		t.Errorf("got %+v", a)
	}
	if b.Codec() != (codec{}) || b.Retry().Attempts != 3 || b.WithCodec(nil).Codec() != (txn.JSON{}) {
		t.Errorf("got %+v", b)
	}
	if (tcc.Action[int, int]{}).Codec() != (txn.JSON{}) {
		t.Error("the default codec is not JSON")
	}
	defer func() {
		if recover() == nil {
			t.Error("NewAction took an action with no service")
		}
	}()
	tcc.NewAction[int, int]("seat")
}
