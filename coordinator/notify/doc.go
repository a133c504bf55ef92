// Package notify tells people and programs what becomes of transactions: that
// one is stalled or parked and needs somebody, that it got on again, how it
// ended, and what operators did to it. It sends these events to webhooks, Kafka
// or any other Sink:
//
//	n, err := notify.New(st, []notify.Subscriber{{Name: "pager", Sink: hook, Types: notify.AlertTypes()}}, nil)
//	c, err := coordinator.New(ctx, st, &coordinator.Config{Observers: []func(store.Record, []store.Event){n.Observe}})
//	g.Go(func() error { return n.Run(ctx) })
//
// # What is promised
//
// Stalled and Parked are level-triggered, and delivered at least once. Observe
// makes them prompt; the truth is the store, which Run reads when it starts and
// again and again: whatever is stalled or parked and was not yet accepted by a
// sink is sent to it, after a crash of the coordinator, an outage of the sink or
// an overflow of its queue, too. After a start, all that is stalled or parked at
// that time is sent again, with the same ids. What needed somebody only for a
// moment, and was seen by nobody meanwhile, is not sent.
//
// Resumed follows each alert that this Notifier sent and that is over, whatever
// came of it, at least once while the Notifier runs. What ends between a crash
// and the next start is not told.
//
// Committed, RolledBack, Abandoned and Operated are sent at least once while
// the process lives and the sink's queue has room. What finds no room is dropped
// and counted: the engine never waits. The audit trail is the complete record.
//
// A sink gets the events of one transaction in their order, but for repetitions.
// An event that is repeated has the same Source and ID. Sinks don't wait for
// each other.
package notify
