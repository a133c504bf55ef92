package tcc_test

import (
	"fmt"
	"time"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

type seatRequest struct{ Flight string }

// The contract, imported by both sides.
var seat = tcc.NewAction[seatRequest, struct{}]("flights.seat")

// A coordinator stores the state after each event and asks for whatever is
// outstanding.
func Example() {
	def := &tcc.Definition{Name: "trip", Timeout: time.Minute}
	payload, err := seat.Codec().Marshal(seatRequest{"AM42"})
	if err != nil {
		fmt.Println(err)
		return
	}
	state := tcc.New(def)
	happens := func(ev txn.Event) {
		if state, err = state.Advance(def, ev); err != nil {
			fmt.Println(err)
		}
	}
	answer := func() {
		for _, call := range state.Outstanding(def) {
			fmt.Println(call.Op, call.Action, string(call.Payload))
			happens(txn.Replied{Branch: call.Branch, Op: call.Op, Attempt: call.Attempt, Outcome: txn.OK})
		}
	}
	happens(tcc.Try{Branch: tcc.Branch{Name: "seat", Action: seat.Name(), Payload: payload, Retry: seat.Retry()}})
	happens(tcc.Commit{}) // too early
	answer()
	happens(tcc.Commit{})
	answer()
	fmt.Println(state.Phase)
	// Output:
	// tcc: a try is unanswered: branch "seat" is TRYING: wait for it, or abort
	// try flights.seat {"Flight":"AM42"}
	// confirm flights.seat {"Flight":"AM42"}
	// COMMITTED
}
