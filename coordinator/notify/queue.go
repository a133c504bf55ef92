package notify

import (
	"fmt"
	"slices"

	"github.com/amends-dev/amends/coordinator/store"
)

// subscriber is a sink with what waits for it. Notifier.mu guards it.
type subscriber struct {
	Subscriber
	cfg    *Config
	queue  []Event
	alerts int             // of the queue
	open   map[string]Type // what it was, or is being, alerted of, by the store's key
	full   bool            // said so in the log
	wake   chan struct{}
	stats  Stats
}

func newSubscriber(s Subscriber, cfg *Config) (*subscriber, error) {
	for _, t := range s.Types {
		if !slices.Contains(AllTypes(), t) {
			return nil, fmt.Errorf("notify: subscriber %q: type %q is none: use one of %v", s.Name, t, AllTypes())
		}
	}
	return &subscriber{Subscriber: s, cfg: cfg, open: map[string]Type{}, wake: make(chan struct{}, 1)}, nil
}

func (s *subscriber) takes(t Type) bool { return len(s.Types) == 0 || slices.Contains(s.Types, t) }

// room reports whether an event of a type would be let in. Alerts have their
// own: a flood of others does not keep them out.
func (s *subscriber) room(t Type) bool {
	if t.alert() {
		return s.alerts < s.cfg.QueueSize
	}
	return len(s.queue)-s.alerts < s.cfg.QueueSize
}

// offer queues an event that is wanted and finds room.
func (s *subscriber) offer(e Event) bool {
	if !s.takes(e.Type) {
		return true
	}
	if !s.room(e.Type) {
		return false
	}
	s.queue = append(s.queue, e)
	if e.Type.alert() {
		s.alerts++
	}
	signal(s.wake)
	return true
}

// unaware reports whether it should be alerted of a transaction, and can be.
func (s *subscriber) unaware(key string, needs Type) bool {
	known := s.open[key]
	return known != needs && s.takes(needs) && s.room(needs) && (known != "" || len(s.open) < s.cfg.MaxAlerts)
}

// head copies the first events of the queue.
func (s *subscriber) head(most int) []Event { return slices.Clone(s.queue[:min(most, len(s.queue))]) }

// settle takes the first events out of the queue: they were sent, or rejected.
func (s *subscriber) settle(n int, count *uint64) {
	for _, e := range s.queue[:n] {
		if e.Type.alert() {
			s.alerts--
		}
	}
	clear(s.queue[:n])
	s.queue = s.queue[n:]
	*count += uint64(n)
	s.full = s.full && !s.room(Committed)
}

// takes reports whether any subscriber wants a type.
func (n *Notifier) takes(t Type) bool {
	return slices.ContainsFunc(n.subs, func(s *subscriber) bool { return s.takes(t) })
}

// pass queues events that are sent as they come, or are dropped.
func (n *Notifier) pass(events ...Event) {
	for _, e := range events {
		for _, s := range n.subs {
			if s.offer(e) {
				continue
			}
			s.stats.Dropped++
			if !s.full {
				s.full = true
				n.cfg.Logger.Warn("amends: a sink of events does not keep up: events are dropped, alerts are not",
					"sink", s.Name, "dropped_since_start", s.stats.Dropped)
			}
		}
	}
}

// unaware reports whether a subscriber should be alerted of a transaction.
func (n *Notifier) unaware(key string, needs Type) bool {
	return slices.ContainsFunc(n.subs, func(s *subscriber) bool { return s.unaware(key, needs) })
}

// alert queues an alert for those who don't know it.
func (n *Notifier) alert(key string, e Event) {
	for _, s := range n.subs {
		if s.unaware(key, e.Type) && s.offer(e) {
			s.open[key] = e.Type
		}
	}
}

// resumed tells those who were alerted. Where there is no room, the alert stays
// open, and the watcher finds it so.
func (n *Notifier) resumed(rec *store.Record) {
	for _, s := range n.subs {
		if s.open[rec.GID] != "" && s.offer(eventOf(n.cfg.Source, rec, Resumed, rec.EventSeq, rec.UpdatedAt)) {
			delete(s.open, rec.GID)
		}
	}
}

// forget closes a transaction's alerts without a word.
func (n *Notifier) forget(key string) {
	for _, s := range n.subs {
		delete(s.open, key)
	}
}

// signal wakes whoever waits for c, now or when he next does.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
