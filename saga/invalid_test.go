package saga_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

func steps(n int) []saga.Step {
	s := make([]saga.Step, n)
	for i := range s {
		s[i] = saga.Step{Name: "s" + strings.Repeat("x", i), Action: "svc.act"}
	}
	return s
}

// TestInvalid: each mistake names the step and the field, and all are told.
func TestInvalid(t *testing.T) {
	tests := []struct {
		name string
		edit func(d *saga.Definition)
		want []string
	}{
		{"no name", func(d *saga.Definition) { d.Name = "" }, []string{"name is empty"}},
		{"no steps", func(d *saga.Definition) { d.Steps = nil }, []string{"steps is empty"}},
		{"too many steps", func(d *saga.Definition) { d.Steps = steps(257) }, []string{"steps has 257 entries, at most 256"}},
		{"negative timeout", func(d *saga.Definition) { d.Timeout = -time.Second }, []string{"timeout is -1s"}},
		{"duplicate name", func(d *saga.Definition) { d.Steps[2].Name = "s" }, []string{`step 2 "s": name is taken by step 0`}},
		{"bad name", func(d *saga.Definition) { d.Steps[1].Name = "a b" }, []string{`step 1 "a b": name "a b" holds a space`}},
		{"long name", func(d *saga.Definition) { d.Steps[1].Name = strings.Repeat("n", 129) }, []string{"name is 129 bytes long"}},
		{"not UTF-8", func(d *saga.Definition) { d.Steps[1].Name = "\xff" }, []string{`not valid UTF-8`}},
		{"no service", func(d *saga.Definition) { d.Steps[1].Action = "debit" }, []string{`step 1 "sx": action "debit" names no service`}},
		{"no action", func(d *saga.Definition) { d.Steps[1].Action = "" }, []string{`step 1 "sx": action is empty`}},
		{"itself", func(d *saga.Definition) { d.Steps[1].After = []int{1} }, []string{`step 1 "sx": after[0] is the step itself: a cycle`}},
		{"forward", func(d *saga.Definition) { d.Steps[0].After = []int{2} }, []string{`step 0 "s": after[0] is 2`, "cycle"}},
		{"no such step", func(d *saga.Definition) { d.Steps[1].After = []int{0, 99} }, []string{`step 1 "sx": after[1] is 99`}},
		{"negative", func(d *saga.Definition) { d.Steps[1].After = []int{-1} }, []string{`step 1 "sx": after[0] is -1`}},
		{"twice", func(d *saga.Definition) { d.Steps[2].After = []int{0, 0} }, []string{`step 2 "sxx": after[1] repeats step "s"`}},
		{"kind", func(d *saga.Definition) { d.Steps[2].Kind = 9 }, []string{`step 2 "sxx": kind is 9`}},
		{"retry", func(d *saga.Definition) { d.Steps[0].Retry.Factor = math.NaN() }, []string{`step 0 "s": retry.factor is NaN`}},
		{"two pivots", func(d *saga.Definition) {
			d.Steps[1].Kind, d.Steps[1].After = saga.Pivot, []int{0}
			d.Steps[2].Kind, d.Steps[2].After = saga.Pivot, []int{1}
		}, []string{`step 2 "sxx": kind is pivot, but step "sx" is the pivot already`}},
		{"undo after the pivot", func(d *saga.Definition) {
			d.Steps[1].Kind, d.Steps[1].After = saga.Pivot, []int{0}
			d.Steps[2].After = []int{1}
		}, []string{`step 2 "sxx": kind is compensatable, but it comes after the pivot "sx"`, "make it retriable"}},
		{"undo beside the pivot", func(d *saga.Definition) {
			d.Steps[1].Kind = saga.Pivot
			d.Steps[2].Kind = saga.Retriable
		}, []string{`step 0 "s": kind is compensatable, but the pivot "sx" does not come after it`}},
		{"all at once", func(d *saga.Definition) { d.Name, d.Steps[0].Name, d.Steps[2].Action = "", "", "x" },
			[]string{"name is empty", `step 0 "": name is empty`, `step 2 "sxx": action "x" names no service`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &saga.Definition{Name: "transfer", Steps: steps(3)}
			tt.edit(d)
			wantErr(t, d.Validate(), tt.want...)
			if data, err := d.Encode(); err == nil {
				if _, err := saga.DecodeDefinition(data); err == nil && tt.name != "not UTF-8" { // JSON replaces it
					t.Error("DecodeDefinition takes it")
				}
			}
		})
	}
}

func wantErr(t *testing.T, err error, want ...string) {
	t.Helper()
	if !errors.Is(err, saga.ErrInvalidDefinition) {
		t.Fatalf("got %v, want ErrInvalidDefinition", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want it to say %q", err, w)
		}
	}
}

func TestDecodeDefinitionRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"not JSON":      `{`,
		"more data":     `{"name":"a","steps":[{"name":"x","action":"s.a"}]} {}`,
		"unknown field": `{"name":"a","steps":[{"name":"x","action":"s.a"}],"colour":"red"}`,
		"unknown kind":  `{"name":"a","steps":[{"name":"x","action":"s.a","kind":"maybe"}]}`,
		"no steps":      `{"name":"a"}`,
		"null":          `null`,
	} {
		if _, err := saga.DecodeDefinition([]byte(data)); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestDecodeStateRefuses(t *testing.T) {
	d := &saga.Definition{Name: "a", Steps: steps(2)}
	d.Steps[1].After = []int{0}
	for name, data := range map[string]string{
		"not JSON":                        `{`,
		"newer version":                   `{"v":3,"phase":"RUNNING","steps":[{"phase":"DOING","attempt":1},{}]}`,
		"no version":                      `{"phase":"RUNNING","steps":[{"phase":"DOING","attempt":1},{}]}`,
		"unknown field":                   `{"v":1,"phase":"RUNNING","steps":[{"phase":"DOING","attempt":1},{}],"x":1}`,
		"unknown phase":                   `{"v":1,"phase":"RUNNING","steps":[{"phase":"RESTING","attempt":1},{}]}`,
		"unknown state":                   `{"v":1,"phase":"DREAMING","steps":[{"phase":"DOING","attempt":1},{}]}`,
		"COMMITTING":                      `{"v":1,"phase":"COMMITTING","steps":[{"phase":"DOING","attempt":1},{}]}`,
		"too few steps":                   `{"v":1,"phase":"RUNNING","steps":[{"phase":"DOING","attempt":1}]}`,
		"nothing to do":                   `{"v":1,"phase":"RUNNING","steps":[{"phase":"DONE","attempt":1},{}]}`,
		"wrong order":                     `{"v":1,"phase":"RUNNING","steps":[{"phase":"DOING","attempt":1},{"phase":"DOING","attempt":1}]}`,
		"no cause":                        `{"v":1,"phase":"ROLLED_BACK","steps":[{"phase":"UNDONE","attempt":1},{}]}`,
		"half committed":                  `{"v":1,"phase":"COMMITTED","steps":[{"phase":"DONE","attempt":1},{}]}`,
		"undo too early":                  `{"v":1,"phase":"ROLLING_BACK","steps":[{"phase":"UNDOING","attempt":1},{"phase":"UNDOING","attempt":1}],"cause":{"code":"ABORTED"}}`,
		"skipped step has a reply":        `{"v":2,"phase":"RUNNING","steps":[{"phase":"SKIPPED","attempt":1,"reply":"YQ=="},{"phase":"DOING","attempt":1}]}`,
		"never called, has an error":      `{"v":2,"phase":"RUNNING","steps":[{"phase":"SKIPPED","error":"no"},{"phase":"DOING","attempt":1}]}`,
		"skipped is not undone":           `{"v":2,"phase":"ROLLED_BACK","steps":[{"phase":"SKIPPED","attempt":1},{}],"cause":{"code":"ABORTED"}}`,
		"undo skipped too early":          `{"v":2,"phase":"ROLLING_BACK","steps":[{"phase":"UNDO_SKIPPED","attempt":1},{"phase":"UNDOING","attempt":1}],"cause":{"code":"ABORTED"}}`,
		"undo skipped on the way forward": `{"v":2,"phase":"RUNNING","steps":[{"phase":"UNDO_SKIPPED","attempt":1},{"phase":"DOING","attempt":1}]}`,
		"abandoned for nothing":           `{"v":1,"phase":"ABANDONED","steps":[{"phase":"DOING","attempt":1},{}]}`,
		"parked with nothing stuck":       `{"v":2,"phase":"PARKED","steps":[{"phase":"UNDO_SKIPPED","attempt":1},{}],"cause":{"code":"ABORTED"}}`,
		"attempt 0":                       `{"v":1,"phase":"RUNNING","steps":[{"phase":"DOING"},{}]}`,
	} {
		if _, err := saga.DecodeState(d, []byte(data)); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	ok := `{"v":1,"phase":"RUNNING","steps":[{"phase":"DOING","attempt":1},{}]}`
	if _, err := saga.DecodeState(d, []byte(ok)); err != nil {
		t.Errorf("refused: %v", err)
	}
	d.Steps = append(d.Steps, saga.Step{Name: "last", Action: "svc.act", After: []int{1}})
	early := `{"v":2,"phase":"RUNNING","steps":[{"phase":"DOING","attempt":1},{"phase":"SKIPPED"},{"phase":"DOING","attempt":1}]}`
	if _, err := saga.DecodeState(d, []byte(early)); err == nil {
		t.Error("taken: a step started behind one that was skipped, before what is before that")
	}
}

// A state keeps a long or garbled error whole or visibly cut, and is stored.
func TestErrorIsClipped(t *testing.T) {
	d := &saga.Definition{Name: "a", Steps: steps(1)}
	for _, message := range []string{strings.Repeat("é", 5000), "x" + strings.Repeat("é", 5000), "bad \xff byte"} {
		s, err := saga.New(d).Advance(d, txn.Replied{Op: txn.Do, Attempt: 1, Outcome: txn.Unknown, Message: message})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(d); err != nil {
			t.Error(err)
		}
		if got := s.Steps[0].Error; len(message) > saga.MaxError && !strings.Contains(got, "truncated, 1000") {
			t.Errorf("cut without saying so: …%s", got[len(got)-50:])
		}
		data, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := saga.DecodeState(d, data); err != nil || again.Steps[0].Error != s.Steps[0].Error {
			t.Errorf("not as it was: %v", err)
		}
	}
}
