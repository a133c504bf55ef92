package saga_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// TestScript plays the scripts of testdata/script; -rewrite writes what came
// out. Commands:
//
//	define               one step a line: name [after=(a,b)|none] [kind=pivot] [attempts=n]
//	start                a new run
//	ok, refused, unknown STEP [op=undo] [attempt=n] [reply=r] [msg=m]
//	                     by default to what is outstanding at that step
//	abort [code=c]       the caller, an operator or the deadline
//	retry, skip, complete, fail, abandon [STEP] [reply=r] [msg=m]
//	                     an operator; retry with no step means all
//	legal                what an operator may do
//	reload               store and load
//
// Each shows the state, then the calls that it waits for.
func TestScript(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	def   *saga.Definition
	state saga.State
}

func (s *script) run(t *testing.T, td *datadriven.TestData) string {
	var err error
	next := s.state
	switch td.Cmd {
	case "define":
		s.def = defineScript(t, td)
		if err := s.def.Validate(); err != nil {
			return err.Error()
		}
		return "valid"
	case "start":
		next = saga.New(s.def)
	case "ok", "refused", "unknown":
		next, err = s.state.Advance(s.def, s.replied(t, td))
	case "abort":
		reason := txn.Reason{Code: txn.CodeAborted}
		td.MaybeScanArgs(t, "code", &reason.Code)
		td.MaybeScanArgs(t, "msg", &reason.Message)
		next, err = s.state.Advance(s.def, txn.Abort{Reason: reason})
	case "retry", "skip", "complete", "fail", "abandon":
		next, err = s.state.Advance(s.def, s.operated(t, td))
	case "legal":
		return s.legal()
	case "reload":
		data, encodeErr := s.state.Encode()
		if encodeErr != nil {
			t.Fatal(encodeErr)
		}
		next, err = saga.DecodeState(s.def, data)
	default:
		td.Fatalf(t, "unknown command %q", td.Cmd)
	}
	if err != nil {
		return err.Error()
	}
	if err := next.Check(s.def); err != nil {
		td.Fatalf(t, "%v", err)
	}
	s.state = next
	return s.show()
}

func defineScript(t *testing.T, td *datadriven.TestData) *saga.Definition {
	t.Helper()
	return parseDefinition(t, td.Input)
}

// parseDefinition reads one step a line.
func parseDefinition(t *testing.T, text string) *saga.Definition {
	t.Helper()
	d := &saga.Definition{Name: "script"}
	index := make(map[string]int)
	for i, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		st := saga.Step{Name: words[0], Action: "svc." + words[0]}
		if i > 0 {
			st.After = []int{i - 1}
		}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "after":
				st.After = nil
				for _, name := range strings.Split(value, ",") {
					if j, known := index[name]; known {
						st.After = append(st.After, j)
					} else if name != "none" {
						t.Fatalf("unknown step %q", name)
					}
				}
			case "kind":
				if err := st.Kind.UnmarshalText([]byte(value)); err != nil {
					t.Fatalf("%v", err)
				}
			case "attempts":
				if _, err := fmt.Sscan(value, &st.Retry.Attempts); err != nil {
					t.Fatalf("%v", err)
				}
			default:
				t.Fatalf("unknown word %q", w)
			}
		}
		index[st.Name] = i
		d.Steps = append(d.Steps, st)
	}
	return d
}

func (s *script) replied(t *testing.T, td *datadriven.TestData) txn.Replied {
	ev := txn.Replied{Branch: -1, Op: txn.Do}
	for i, st := range s.def.Steps {
		if st.Name == td.CmdArgs[0].Key {
			ev.Branch, ev.Attempt = i, s.state.Steps[i].Attempt
		}
	}
	for _, c := range s.state.Outstanding(s.def) {
		if c.Branch == ev.Branch {
			ev.Op, ev.Attempt = c.Op, c.Attempt
		}
	}
	ev.Outcome = map[string]txn.Outcome{"ok": txn.OK, "refused": txn.Refused, "unknown": txn.Unknown}[td.Cmd]
	var op, reply string
	td.MaybeScanArgs(t, "op", &op)
	td.MaybeScanArgs(t, "reply", &reply)
	td.MaybeScanArgs(t, "attempt", &ev.Attempt)
	td.MaybeScanArgs(t, "msg", &ev.Message)
	ev.Reply = []byte(reply)
	for o := txn.Do; o <= txn.Cancel; o++ {
		if o.String() == op {
			ev.Op = o
		}
	}
	return ev
}

func (s *script) operated(t *testing.T, td *datadriven.TestData) txn.Event {
	branch := txn.All
	if len(td.CmdArgs) > 0 && len(td.CmdArgs[0].Vals) == 0 {
		branch = slices.IndexFunc(s.def.Steps, func(st saga.Step) bool { return st.Name == td.CmdArgs[0].Key })
	}
	var reply, msg string
	td.MaybeScanArgs(t, "reply", &reply)
	td.MaybeScanArgs(t, "msg", &msg)
	switch td.Cmd {
	case "retry":
		return txn.TryAgain{Branch: branch}
	case "skip":
		return txn.Skip{Branch: branch}
	case "complete":
		return txn.Complete{Branch: branch, Reply: []byte(reply)}
	case "fail":
		return txn.Fail{Branch: branch, Message: msg}
	}
	return txn.Abandon{Reason: txn.Reason{Message: msg}}
}

func (s *script) legal() string {
	var b strings.Builder
	for i := txn.All; i < len(s.def.Steps); i++ {
		name := "all"
		if i >= 0 {
			name = s.def.Steps[i].Name
		}
		fmt.Fprintf(&b, "%s: %s\n", name, spell(s.state.Legal(s.def, i)))
	}
	return b.String()
}

func (s *script) show() string {
	var b strings.Builder
	b.WriteString(describeState(s.def, s.state))
	b.WriteString("\n")
	for _, c := range s.state.Outstanding(s.def) {
		fmt.Fprintf(&b, "  -> %s %s #%d", c.Op, c.Name, c.Attempt)
		for _, r := range c.Replies {
			fmt.Fprintf(&b, " %s=%s", r.Branch, r.Body)
		}
		b.WriteString("\n")
	}
	return b.String()
}
