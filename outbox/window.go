package outbox

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// window is what the owner of a partition knows about the ids it has read. It
// does no I/O.
//
// Ids become visible in another order than they were given out: the writer of 4
// may commit after that of 6. So an id that was jumped over stays a gap until it
// was read, at most for the grace time, and whoever reads on behind a gap also asks
// what has appeared in it. That is enough for the order per key: a message of a key
// that comes after the one in the gap was written, and so became visible, after it.
type window struct {
	grace   time.Duration    // how long a writer may take to commit
	cursor  int64            // ids up to here were read in this pass
	pass    int              // counts the moves back
	high    int64            // the highest id ever read
	gaps    []gap            // ascending, and so oldest first; at most maxGaps
	held    map[int64]string // the keys of rows that wait behind a failed message
	keys    map[string]*hold // of messages that failed
	due     time.Time        // the earliest hold's end, zero when none
	changed bool             // keys are not as they were noted
}

// gap says that ids in a range, both ends included, were not there when their page was read.
type gap struct {
	from, to int64
	since    time.Time
}

// maxGaps bounds what is kept in mind. With more the lower half becomes one.
const maxGaps = 1000

// hold keeps back the messages of a key.
type hold struct {
	attempts int
	until    time.Time // zero: to be tried with the pass under way
	cause    cause
}

// cause is why a key is held.
type cause struct {
	row   int64 // the first message
	id    string
	topic string
	key   string // of the message: empty when it has none
	err   string
	since time.Time
}

func newWindow(grace time.Duration) *window {
	return &window{grace: grace, held: map[int64]string{}, keys: map[string]*hold{}}
}

// saw notes the ids of a page, ascending: where they leave gaps, and which gaps they end.
func (w *window) saw(ids []int64, now time.Time) {
	for _, id := range ids {
		switch {
		case id <= w.high:
			w.fill(id)
			continue
		case id > w.high+1:
			w.gaps = append(w.gaps, gap{from: w.high + 1, to: id - 1, since: now})
		}
		w.high = id
	}
	if n := len(w.gaps); n > maxGaps {
		half := w.gaps[n/2]
		half.from = w.gaps[0].from
		w.gaps = append([]gap{half}, w.gaps[n/2+1:]...)
	}
}

// fill takes an id out of the gap that it is in, if it is in one: nothing else can appear in its place.
func (w *window) fill(id int64) {
	i, _ := slices.BinarySearchFunc(w.gaps, id, func(g gap, id int64) int { return cmp.Compare(g.to, id) })
	if i == len(w.gaps) || id < w.gaps[i].from {
		return
	}
	g := w.gaps[i]
	var rest []gap
	if g.from < id {
		rest = append(rest, gap{g.from, id - 1, g.since})
	}
	if id < g.to {
		rest = append(rest, gap{id + 1, g.to, g.since})
	}
	w.gaps = slices.Replace(w.gaps, i, i+1, rest...)
}

// unsure are the ends of a range that has all gaps up to the cursor: (after, upTo]. It is
// empty where there are none.
func (w *window) unsure() (after, upTo int64) {
	if len(w.gaps) == 0 {
		return 0, 0
	}
	return w.gaps[0].from - 1, min(w.cursor, w.gaps[len(w.gaps)-1].to)
}

// forget drops the gaps that are past the grace time.
func (w *window) forget(now time.Time) {
	for len(w.gaps) > 0 && now.Sub(w.gaps[0].since) > w.grace {
		w.gaps = w.gaps[1:]
	}
}

// floor is the highest id below which nothing can be waiting: it trails the
// lowest held row and the lowest gap.
func (w *window) floor() int64 {
	floor := w.cursor
	if len(w.gaps) > 0 {
		floor = min(floor, w.gaps[0].from-1)
	}
	for id := range w.held {
		floor = min(floor, id-1)
	}
	return floor
}

// late picks from the ids that are in the table up to the cursor the first one
// that was not read before, and moves the cursor in front of it.
func (w *window) late(ids []int64) bool {
	for _, id := range ids {
		if _, ok := w.held[id]; !ok {
			w.rewind(id - 1)
			return true
		}
	}
	return false
}

// rewind starts a new pass behind an id. What was held behind it is read again.
func (w *window) rewind(cursor int64) {
	w.cursor = min(w.cursor, cursor)
	w.pass++
	maps.DeleteFunc(w.held, func(id int64, _ string) bool { return id > w.cursor })
}

// restart starts a new pass from zero, as if nothing had been read yet: any id may
// still appear. The holds stay.
func (w *window) restart() {
	w.rewind(0)
	w.high, w.gaps = 0, nil
}

// sweep starts a new pass from zero and drops the holds that met no row.
func (w *window) sweep() {
	w.rewind(0)
	maps.DeleteFunc(w.keys, func(_ string, h *hold) bool { return h.until.IsZero() })
}

// retry starts a new pass from the floor when the time of a hold has come.
func (w *window) retry(now time.Time) {
	if w.due.IsZero() || now.Before(w.due) {
		return
	}
	w.due = time.Time{}
	from := w.floor()
	for _, h := range w.keys {
		if !h.until.IsZero() && !now.Before(h.until) {
			h.until = time.Time{}
		}
		w.dueBy(h.until)
	}
	w.rewind(from)
}

func (w *window) dueBy(t time.Time) {
	if !t.IsZero() && (w.due.IsZero() || t.Before(w.due)) {
		w.due = t
	}
}

// blocked tells whether messages of a key have to wait.
func (w *window) blocked(key string) bool {
	h := w.keys[key]
	return h != nil && !h.until.IsZero()
}

// attempts counts how often the first message of a key has failed.
func (w *window) attempts(key string) int {
	if h := w.keys[key]; h != nil {
		return h.attempts
	}
	return 0
}

// hold keeps a key back, after so many failed attempts of its first message.
func (w *window) hold(key string, attempts int, until time.Time) {
	h := w.keys[key]
	if h == nil {
		h = &hold{}
		w.keys[key] = h
	}
	h.attempts, h.until = attempts, until
	w.dueBy(until)
	w.changed = true
}

// blame notes why a key that is held is so.
func (w *window) blame(key string, c cause) {
	if h := w.keys[key]; h != nil {
		if h.cause.row == c.row {
			c.since = h.cause.since
		}
		h.cause = c
	}
}

// resolved ends the hold of a key: its first message is out of the way.
func (w *window) resolved(key string) {
	if w.keys[key] != nil {
		w.changed = true
		delete(w.keys, key)
	}
}

// lift ends the hold of a key whose first message somebody took away: what is
// behind it is read again.
func (w *window) lift(key string) {
	w.resolved(key)
	w.rewind(0)
}
