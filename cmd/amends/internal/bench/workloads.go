package bench

import (
	"context"
	"slices"
)

const limitsName = "limits"

// workload is something to measure.
type workload struct {
	run   func(context.Context, *rig) (Result, error)
	limit string // that of the machine which is nearest to it
}

var workloads = map[string]workload{
	"saga":     {runSagas, limitUnary},
	"tcc":      {runTCC, limitUnary},
	"hot-key":  {runHotKey, limitInsert},
	"start-tx": {runStartTx, limitInsert},
	"business": {runBusiness, limitInsert},
	"outbox":   {runOutbox, limitInsert},
	"relay":    {runRelay, limitProduce},
	"consume":  {runConsume, limitProduce},
	"latency":  {runLatency, ""},
	"overload": {runOverload, ""},
}

// Workloads are the names of what can be measured:
//
//   - limits: what the machine can do at best, in the same units
//   - saga, tcc: transactions to their end, each waited for
//   - hot-key: sagas of all clients on the same rows
//   - business, outbox: a local transaction of one row, without and with a message
//   - start-tx: a saga started in a local transaction, to its end
//   - relay: a backlog published; consume: the same handled once
//   - latency: from a message's commit to its handler
//   - overload: more sagas than can be done
func Workloads() []string {
	names := []string{limitsName}
	for name := range workloads {
		names = append(names, name)
	}
	slices.Sort(names[1:])
	return names
}
