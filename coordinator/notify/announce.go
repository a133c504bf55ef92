package notify

import (
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// Lifecycle tells a log such as Kafka what becomes of transactions, through the
// outbox of the coordinator's own store: the messages are committed together
// with the transition that they tell of, so that each leaves at least once,
// whatever crashes, and none tells of what did not come to be. The zero value
// is ready for use:
//
//	box := outbox.New(outbox.MySQL, nil)
//	st, err := sqlstore.OpenMySQL(ctx, dsn, &sqlstore.Config{Outbox: …box.Write…})
//	c, err := coordinator.New(ctx, st, &coordinator.Config{Announce: notify.Lifecycle{}.Announce})
//
// It tells Stalled, Parked, Committed, RolledBack, Abandoned and Operated, in
// their order. Resumed is for pagers: it is a Notifier's.
type Lifecycle struct {
	Source string // begins Event.Source; "" stands for "amends"
	Topic  string // "" stands for DefaultTopic
}

// Announce is for coordinator.Config.Announce. A message that comes again has
// the same id.
func (l Lifecycle) Announce(rec store.Record, events []store.Event) []store.Message {
	if rec.Kind == bulkKind || len(events) == 0 {
		return nil
	}
	if l.Source == "" {
		l.Source = defaultSource
	}
	if l.Topic == "" {
		l.Topic = DefaultTopic
	}
	var out []store.Message
	for _, e := range l.happened(&rec, events) {
		m, err := publisher{topic: l.Topic}.message(e)
		if err != nil {
			// Strings and numbers always encode. Were it otherwise, the transaction
			// must not fail for it: the audit trail has what the message would say.
			continue
		}
		out = append(out, m)
	}
	return out
}

// happened are the events of one transition. Several audit events may have
// been gathered in it.
func (l Lifecycle) happened(rec *store.Record, events []store.Event) (out []Event) {
	var acts []Event
	parked := false
	for i := range events {
		ev := &events[i]
		d := detailOf(ev)
		if isVerb(ev, &d) {
			acts = append(acts, operatedBy(l.Source, rec, ev, &d))
			out = append(out, acts[len(acts)-1])
		}
		was := parked
		parked = d.State == txn.Parked.String()
		var e Event
		switch {
		case ev.Type == "stalled":
			e = eventOf(l.Source, rec, Stalled, ev.Seq, ev.At)
			e.Reason = d.Message
		case parked && !was && (ev.Type == "replied" || ev.Type == "fail"): // others find it so
			e = eventOf(l.Source, rec, Parked, ev.Seq, ev.At)
		default:
			continue
		}
		e.State, e.Branch, e.WaitsFor = d.State, d.Branch, rec.WaitsFor
		out = append(out, e)
	}
	if t := ending(rec); t != "" && !rec.FinishedAt.IsZero() {
		out = append(out, ended(l.Source, rec, t, acts))
	}
	return out
}
