package tcc_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestScript plays the scripts of testdata/script; -rewrite writes what came
// out. Commands:
//
//	begin [check]        a new transaction, by a definition with a check
//	expire [msg=m]       its deadline
//	try BRANCH [payload=p] [attempts=n] [action=a]
//	commit, abort [code=c] [msg=m]
//	ok, refused, unknown BRANCH [op=cancel] [attempt=n] [reply=r] [msg=m]
//	                     by default to what is outstanding at that branch; with
//	                     no branch to a check
//	retry, skip, complete, fail, abandon [BRANCH] [msg=m]
//	                     an operator; with no branch about the whole
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
	state   tcc.State
	checked bool // by a definition with a check
}

// def is the definition of the transaction.
func (s *script) def() *tcc.Definition {
	if s.checked {
		return checkedDef
	}
	return scriptDef
}

var (
	scriptDef  = &tcc.Definition{Name: "script", Timeout: time.Minute}
	checkedDef = &tcc.Definition{Name: "script", Timeout: time.Minute, Check: tcc.CheckBack{Action: "app.check"}}
)

func (s *script) run(t *testing.T, td *datadriven.TestData) string {
	var err error
	next := s.state
	switch td.Cmd {
	case "begin":
		s.checked = td.HasArg("check")
		next = tcc.New(s.def())
	case "try":
		next, err = s.state.Advance(s.def(), s.try(t, td))
	case "commit":
		next, err = s.state.Advance(s.def(), tcc.Commit{})
	case "abort":
		reason := txn.Reason{Code: txn.CodeAborted}
		td.MaybeScanArgs(t, "code", &reason.Code)
		td.MaybeScanArgs(t, "msg", &reason.Message)
		next, err = s.state.Advance(s.def(), txn.Abort{Reason: reason})
	case "expire":
		reason := txn.Reason{Code: txn.CodeDeadline}
		td.MaybeScanArgs(t, "msg", &reason.Message)
		next, err = s.state.Advance(s.def(), tcc.Expire{Reason: reason})
	case "ok", "refused", "unknown":
		next, err = s.state.Advance(s.def(), s.replied(t, td))
	case "retry", "skip", "complete", "fail", "abandon":
		next, err = s.state.Advance(s.def(), s.operated(t, td))
	case "legal":
		return s.legal()
	case "reload":
		data, encodeErr := s.state.Encode()
		if encodeErr != nil {
			t.Fatal(encodeErr)
		}
		next, err = tcc.DecodeState(s.def(), data)
	default:
		td.Fatalf(t, "unknown command %q", td.Cmd)
	}
	if err != nil {
		return err.Error()
	}
	if err := next.Check(s.def()); err != nil {
		td.Fatalf(t, "%v", err)
	}
	s.state = next
	return s.show()
}

func (s *script) try(t *testing.T, td *datadriven.TestData) tcc.Try {
	b := tcc.Branch{Name: td.CmdArgs[0].Key, Action: "svc." + td.CmdArgs[0].Key}
	var payload string
	td.MaybeScanArgs(t, "payload", &payload)
	td.MaybeScanArgs(t, "action", &b.Action)
	td.MaybeScanArgs(t, "attempts", &b.Retry.Attempts)
	b.Payload = []byte(payload)
	return tcc.Try{Branch: b}
}

func (s *script) replied(t *testing.T, td *datadriven.TestData) txn.Replied {
	ev := txn.Replied{Branch: txn.All, Op: txn.Check}
	if len(td.CmdArgs) > 0 && len(td.CmdArgs[0].Vals) == 0 {
		ev = txn.Replied{Branch: s.state.Find(td.CmdArgs[0].Key), Op: txn.Try}
	}
	for _, c := range s.state.Outstanding(s.def()) {
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
	for o := txn.Do; o <= txn.Check; o++ {
		if o.String() == op {
			ev.Op = o
		}
	}
	return ev
}

func (s *script) operated(t *testing.T, td *datadriven.TestData) txn.Event {
	branch := txn.All
	if len(td.CmdArgs) > 0 && len(td.CmdArgs[0].Vals) == 0 {
		branch = s.state.Find(td.CmdArgs[0].Key)
	}
	var msg string
	td.MaybeScanArgs(t, "msg", &msg)
	switch td.Cmd {
	case "retry":
		return txn.TryAgain{Branch: branch}
	case "skip":
		return txn.Skip{Branch: branch}
	case "complete":
		return txn.Complete{Branch: branch}
	case "fail":
		return txn.Fail{Branch: branch, Message: msg}
	}
	return txn.Abandon{Reason: txn.Reason{Message: msg}}
}

func (s *script) legal() string {
	var b strings.Builder
	fmt.Fprintf(&b, "all: %s\n", spell(s.state.Legal(s.def(), txn.All)))
	for i, br := range s.state.Branches {
		fmt.Fprintf(&b, "%s: %s\n", br.Name, spell(s.state.Legal(s.def(), i)))
	}
	return b.String()
}

func (s *script) show() string {
	var b strings.Builder
	b.WriteString(describeState(s.state))
	b.WriteString("\n")
	for _, c := range s.state.Outstanding(s.def()) {
		fmt.Fprintf(&b, "  -> %s %s #%d %s\n", c.Op, c.Name, c.Attempt, c.Payload)
	}
	return b.String()
}
