package saga_test

import (
	"fmt"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

type transferInput struct {
	From, To string
	Cents    int
}

type accountRequest struct {
	Account string
	Cents   int
}

// The contract, imported by both sides.
var (
	debitAccount  = saga.NewAction[accountRequest, struct{}]("accounts.debit")
	creditAccount = saga.NewAction[accountRequest, struct{}]("accounts.credit")
)

// The saga, in Go code.
var transfer = saga.Define("transfer", func(b *saga.Builder, in transferInput) {
	b.Step("debit", debitAccount.With(accountRequest{in.From, in.Cents}))
	b.Step("credit", creditAccount.With(accountRequest{in.To, in.Cents})).Attempts(5)
})

// A coordinator stores the state after each event and asks for whatever is
// outstanding. Here, credit is refused.
func Example() {
	def, err := transfer.Build(transferInput{"alice", "bob", 500})
	if err != nil {
		fmt.Println(err)
		return
	}
	state := saga.New(def)
	for !state.Phase.Finished() {
		call := state.Outstanding(def)[0]
		reply := txn.Replied{Branch: call.Branch, Op: call.Op, Attempt: call.Attempt, Outcome: txn.OK}
		if call.Name == "credit" && call.Op == txn.Do {
			reply.Outcome, reply.Message = txn.Refused, "no such account"
		}
		fmt.Println(call.Op, call.Action, string(call.Payload), "->", reply.Outcome)
		if state, err = state.Advance(def, reply); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(state.Phase, state.Cause)
	// Output:
	// do accounts.debit {"Account":"alice","Cents":500} -> ok
	// do accounts.credit {"Account":"bob","Cents":500} -> refused
	// undo accounts.credit {"Account":"bob","Cents":500} -> ok
	// undo accounts.debit {"Account":"alice","Cents":500} -> ok
	// ROLLED_BACK step "credit": REFUSED: no such account
}
