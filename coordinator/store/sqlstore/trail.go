package sqlstore

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/amends-dev/amends/coordinator/store"
)

// The first events of a transaction are kept in its own row, which is written
// anyway, one JSON object a line:
//
//	{"seq":1,"at":1700000000000000,"type":"started","prev":"","hash":"base64","data":{…}}
//
// Where an event is kept depends on nothing but itself, so that a commit needs
// not know what is there: those with a higher number, a longer line, or Data that
// is not JSON (or is sealed) are rows of amends_events. Readers merge the two.
const (
	trailEvents = 12  // the highest number
	trailLine   = 512 // the longest line, in bytes

	// unreadable is the type of what stands where a line should, and is none.
	unreadable = `unreadable`
)

// appendLine adds an event to the lines that its transaction's row has, if it is
// kept there.
func appendLine(lines []byte, ev *store.Event) (more []byte, kept bool) {
	if ev.Seq > trailEvents || len(ev.Data) > trailLine || !isWord(ev.Type) || !isObject(ev.Data) {
		return lines, false
	}
	more = strconv.AppendInt(append(lines, `{"seq":`...), ev.Seq, 10)
	more = strconv.AppendInt(append(more, `,"at":`...), ev.At.UnixMicro(), 10)
	more = append(append(more, `,"type":"`...), ev.Type...)
	more = base64.StdEncoding.AppendEncode(append(more, `","prev":"`...), ev.Prev)
	more = base64.StdEncoding.AppendEncode(append(more, `","hash":"`...), ev.Hash)
	more = append(more, `","data":`...)
	if len(ev.Data) == 0 {
		more = append(more, `null`...)
	}
	if more = append(append(more, ev.Data...), "}\n"...); len(more)-len(lines) > trailLine {
		return lines, false
	}
	return more, true
}

// isWord reports whether a text is the same between quotes.
func isWord(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })
}

// isObject reports whether data is nothing, or one JSON object on one line.
func isObject(data []byte) bool {
	if len(data) == 0 {
		return true
	}
	return data[0] == '{' && data[len(data)-1] == '}' && bytes.IndexByte(data, '\n') < 0 && utf8.Valid(data) && json.Valid(data)
}

// readTrail returns the events of a transaction's row. What is not as the store
// writes it becomes an event, too, whose hash is not right.
func readTrail(gid string, trail []byte) []store.Event {
	var events []store.Event
	var last int64
	for text := range bytes.Lines(trail) {
		ev, ok := readLine(gid, text)
		if !ok {
			ev = store.Event{GID: gid, Seq: last + 1, At: time.UnixMicro(0).UTC(), Type: unreadable, Data: bytes.Clone(text)}
		}
		last = ev.Seq
		events = append(events, ev)
	}
	return events
}

func readLine(gid string, text []byte) (ev store.Event, ok bool) {
	var line struct {
		Seq, At    int64
		Type       string
		Prev, Hash []byte
		Data       json.RawMessage
	}
	if json.Unmarshal(text, &line) != nil {
		return ev, false
	}
	if string(line.Data) == `null` {
		line.Data = nil
	}
	ev = store.Event{GID: gid, Seq: line.Seq, At: time.UnixMicro(line.At).UTC(), Type: line.Type,
		Data: orNil(line.Data), Prev: orNil(line.Prev), Hash: orNil(line.Hash)}
	// JSON can say the same in many ways, and more than is read of it.
	same, ok := appendLine(nil, &ev)
	return ev, ok && bytes.Equal(same, text)
}

// merge returns up to limit events with a number above after, in order, of those
// in a row and those that are rows.
func merge(trail, rows []store.Event, after int64, limit int) []store.Event {
	trail = slices.DeleteFunc(trail, func(ev store.Event) bool { return ev.Seq <= after })
	all := slices.Concat(trail, rows)
	slices.SortStableFunc(all, func(a, b store.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	if all = all[:min(len(all), max(limit, 0))]; len(all) == 0 {
		return nil
	}
	return all
}
