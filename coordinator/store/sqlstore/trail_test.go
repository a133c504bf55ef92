package sqlstore

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

func trailEvent(seq int64, data string) store.Event {
	ev := store.Event{GID: "g", Seq: seq, At: time.UnixMicro(seq).UTC(), Type: "replied", Hash: []byte{byte(seq), 0xff}}
	if data != "" {
		ev.Data = []byte(data)
	}
	if seq > 1 {
		ev.Prev = []byte{byte(seq - 1), 0xff}
	}
	return ev
}

// TestTrail holds the lines that are in databases: they never change.
func TestTrail(t *testing.T) {
	events := []store.Event{trailEvent(1, `{"state":"RUNNING","message":"<ü>"}`), trailEvent(2, ``)}
	const want = `{"seq":1,"at":1,"type":"replied","prev":"","hash":"Af8=","data":{"state":"RUNNING","message":"<ü>"}}
{"seq":2,"at":2,"type":"replied","prev":"Af8=","hash":"Av8=","data":null}
`
	var lines []byte
	for i := range events {
		var kept bool
		if lines, kept = appendLine(lines, &events[i]); !kept {
			t.Errorf("event %d is not kept", i+1)
		}
	}
	if string(lines) != want {
		t.Errorf("got %s want %s", lines, want)
	}
	if got := readTrail("g", lines); !reflect.DeepEqual(got, events) {
		t.Errorf("came back as %+v", got)
	}
}

// TestTrailBounds: what is kept elsewhere leaves no trace in the row.
func TestTrailBounds(t *testing.T) {
	before := []byte("before\n")
	longest := trailLine - len(`{"seq":12,"at":12,"type":"replied","prev":"C/8=","hash":"DP8=","data":{"":""}}`) - 1
	for name, c := range map[string]struct {
		ev   store.Event
		kept bool
	}{
		"the last number":  {trailEvent(trailEvents, `{}`), true},
		"a higher one":     {trailEvent(trailEvents+1, `{}`), false},
		"the longest line": {trailEvent(trailEvents, `{"":"`+strings.Repeat("x", longest)+`"}`), true},
		"a longer one":     {trailEvent(trailEvents, `{"":"`+strings.Repeat("x", longest+1)+`"}`), false},
		"a list":           {trailEvent(1, `[]`), false},
		"null":             {trailEvent(1, `null`), false},
		"two objects":      {trailEvent(1, `{}{}`), false},
		"space behind it":  {trailEvent(1, `{} `), false},
		"two lines":        {trailEvent(1, "{\n}"), false},
		"no JSON":          {trailEvent(1, `{"a"}`), false},
		"no text":          {trailEvent(1, "{\"\xff\":1}"), false},
		"sealed":           {trailEvent(1, "\xffAMS1 {}"), false},
		"no word":          {store.Event{Seq: 1, Type: `a"b`}, false},
	} {
		got, kept := appendLine(before, &c.ev)
		if kept != c.kept || !bytes.HasPrefix(got, before) || kept != (len(got) > len(before)) {
			t.Errorf("%s: kept: %t, want %t; %d bytes", name, kept, c.kept, len(got))
		}
		if kept && len(got)-len(before) > trailLine {
			t.Errorf("%s: a line of %d bytes", name, len(got)-len(before))
		}
	}
	if trailEvents*trailLine != 6144 {
		t.Error("the column trail holds another number of bytes")
	}
}

// TestTrailForged: whatever stands in a row that the store did not write is an
// event whose hash is not right, at its place.
func TestTrailForged(t *testing.T) {
	var lines []byte
	for seq := range int64(3) {
		ev := trailEvent(seq+1, fmt.Sprintf(`{"n":%d}`, seq))
		lines, _ = appendLine(lines, &ev)
	}
	for name, c := range map[string]struct{ old, forged string }{
		"another key":         {`"seq":2,`, `"seq":2,"x":1,`},
		"a key twice":         {`{"n":1}`, `{"n":9},"data":{"n":1}`},
		"a key in upper case": {`"seq":2,`, `"SEQ":2,`},
		"a space":             {`"seq":2,`, `"seq": 2,`},
		"another order":       {`"seq":2,"at":2,`, `"at":2,"seq":2,`},
		"no JSON":             {`"seq":2,`, `"seq":2`},
		"a line between":      {`{"seq":2,`, "\n" + `{"seq":2,`},
		"base64 with a break": {`"hash":"Av8="`, `"hash":"Av\n8="`},
	} {
		text := strings.Replace(string(lines), c.old, c.forged, 1)
		if text == string(lines) {
			t.Fatalf("%s: is not there", name)
		}
		events := readTrail("g", []byte(text))
		if len(events) < 3 || events[1].Type != unreadable || events[1].Seq != 2 || events[1].Hash != nil || events[0].Type != "replied" {
			t.Errorf("%s: read as %+v", name, events)
		}
	}
	if events := readTrail("g", lines[:len(lines)-1]); events[2].Type != unreadable {
		t.Errorf("cut short: read as %+v", events[2])
	}
}
