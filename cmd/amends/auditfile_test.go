package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// written is a trail of n events as a coordinator writes it.
func written(namespace, gid string, n int) *trail {
	t := &trail{namespace: namespace, gid: gid, headSeq: int64(n)}
	for i := range int64(n) {
		e := entry{gid: gid, seq: i + 1, at: time.UnixMicro(1_700_000_000_000_000 + i), kind: "replied",
			data: fmt.Appendf(nil, `{"state":"RUNNING","message":"<\u2028 %d>"}`, i), prev: t.headHash}
		e.hash = amendsv1.AuditHash(e.prev, namespace, gid, e.seq, e.at, e.kind, e.data)
		t.entries, t.headHash = append(t.entries, e), e.hash
	}
	return t
}

func exported(t *testing.T, trails ...*trail) string {
	t.Helper()
	var out bytes.Buffer
	for _, tr := range trails {
		if err := tr.write(&out); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// reread verifies an export, as `audit verify --file` does.
func reread(text string) (findings, error) {
	var found findings
	err := readTrails(strings.NewReader(text), func(t *trail) error {
		found.check(t)
		return nil
	})
	return found, err
}

func TestExportIsReadBack(t *testing.T) {
	odd := written("", "odd", 1)
	odd.entries[0].data = []byte("\xff\x00")
	odd.entries[0].hash = amendsv1.AuditHash(nil, "", "odd", 1, odd.entries[0].at, "replied", odd.entries[0].data)
	odd.headHash = odd.entries[0].hash
	text := exported(t, written("", "a", 3), written("shop", "a", 2), odd)
	found, err := reread(text)
	if err != nil || found.Transactions != 3 || found.Events != 6 || len(found.Broken) != 0 {
		t.Errorf("%v: %+v in\n%s", err, found, text)
	}
}

// TestExportFormat pins the format: files that were written stay readable.
func TestExportFormat(t *testing.T) {
	const want = `{"v":1,"namespace":"shop","gid":"A-17","seq":1,"time":"2023-11-14T22:13:20.000000Z","type":"replied",` +
		`"data":"{\"state\":\"RUNNING\",\"message\":\"<\\u2028 0>\"}","prev_hash":"",` +
		`"hash":"11","head_seq":1,"head_hash":"11"}` + "\n"
	tr := written("shop", "A-17", 1)
	tr.entries[0].hash, tr.headHash = []byte{0x11}, []byte{0x11}
	if got := exported(t, tr); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestForgedExport edits lines of a file.
func TestForgedExport(t *testing.T) {
	for _, c := range []struct {
		name  string
		forge func(lines []string) []string
		want  string // of the first broken link, or of the error
	}{
		{"line of another namespace", func(l []string) []string {
			l[0] = strings.Replace(l[0], `"namespace":""`, `"namespace":"x"`, 1)
			return l
		}, "a 1: changed"},
		{"cut off", func(l []string) []string { return l[:2] }, "a 3: missing"},
		{"head lowered in the last lines", func(l []string) []string {
			l[2] = strings.Replace(l[2], `"head_seq":3`, `"head_seq":2`, 1)
			return l
		}, "a 3: missing"},
		{"swapped", func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }, "a 2: missing"},
		{"doubled", func(l []string) []string { return slices.Insert(l, 1, l[1]) }, "a 2: out of order"},
		{"half a line", func(l []string) []string { l[4] = l[4][:20]; return l }, "line 5: no audit event"},
		{"two in one line", func(l []string) []string { return []string{strings.TrimSpace(l[0]) + l[1]} }, "line 1: there is more"},
		{"of a later version", func(l []string) []string { l[0] = strings.Replace(l[0], `"v":1`, `"v":2`, 1); return l }, "line 1: v is 2"},
		{"no time", func(l []string) []string { l[0] = strings.Replace(l[0], "2023-", "", 1); return l }, "line 1: parsing time"},
		{"no hash", func(l []string) []string {
			l[0] = strings.Replace(l[0], `"hash":"`, `"hash":"zz`, 1)
			return l
		}, "line 1: encoding/hex"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := strings.SplitAfter(strings.TrimSuffix(exported(t, written("", "a", 3), written("", "b", 2)), "\n"), "\n")
			found, err := reread(strings.Join(c.forge(lines), ""))
			got := fmt.Sprint(err)
			if len(found.Broken) > 0 {
				got = fmt.Sprintf("%s %d: %s", found.Broken[0].GID, found.Broken[0].Seq, found.Broken[0].Problem)
			}
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// growing is a coordinator on which a trail grows while it is read.
type growing struct {
	amendsv1.AdminServiceClient
	trails []*trail // what ListEvents and GetTransaction see, call by call
	call   int
}

func (g *growing) next() (*amendsv1.Transaction, []*amendsv1.Event) {
	t := g.trails[min(g.call, len(g.trails)-1)]
	g.call++
	tx := &amendsv1.Transaction{Gid: t.gid, EventSeq: t.headSeq, EventHash: t.headHash}
	var events []*amendsv1.Event
	for _, e := range t.entries {
		events = append(events, &amendsv1.Event{Gid: e.gid, Seq: e.seq, Time: timestamppb.New(e.at), Type: e.kind, Data: e.data,
			PrevHash: e.prev, Hash: e.hash})
	}
	return tx, events
}

func (g *growing) GetTransaction(context.Context, *amendsv1.GetTransactionRequest, ...grpc.CallOption) (*amendsv1.GetTransactionResponse, error) {
	tx, _ := g.next()
	return &amendsv1.GetTransactionResponse{Transaction: tx}, nil
}

func (g *growing) ListEvents(context.Context, *amendsv1.ListEventsRequest, ...grpc.CallOption) (*amendsv1.ListEventsResponse, error) {
	_, events := g.next()
	return &amendsv1.ListEventsResponse{Events: events}, nil
}

// TestTrailOfOneMoment: a trail that grows while it is read is not broken, and
// one that stands still is not read for ever.
func TestTrailOfOneMoment(t *testing.T) {
	forged := written("", "g", 3)
	forged.entries = forged.entries[:2]
	for _, c := range []struct {
		name   string
		trails []*trail // the first is what the list of transactions saw
		events int
		whole  bool
	}{
		{"still", []*trail{written("", "g", 3)}, 3, true},
		{"grows twice", []*trail{written("", "g", 1), written("", "g", 2), written("", "g", 3), written("", "g", 4), written("", "g", 4)}, 4, true},
		{"cut off", []*trail{forged}, 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &growing{trails: c.trails}
			tx, _ := g.next()
			got, err := fetchTrail(t.Context(), g, tx)
			if err != nil {
				t.Fatal(err)
			}
			if b := got.verify(); len(got.entries) != c.events || (b == nil) != c.whole {
				t.Errorf("%d events, broken: %v; want %d, whole: %v", len(got.entries), b, c.events, c.whole)
			}
		})
	}
}

// FuzzReadTrails reads anything without a crash.
func FuzzReadTrails(f *testing.F) {
	f.Add(`{"v":1,"namespace":"","gid":"a","seq":1,"time":"2023-11-14T22:13:20Z","type":"t","data":"{}","prev_hash":"","hash":"00","head_seq":1,"head_hash":"00"}`)
	f.Add("{}\n[]\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = reread(text) // whatever it says
	})
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"24h": "2026-11-22T12:00:00Z", "2026-11-01": "2026-11-01T00:00:00Z", "2026-11-01T08:00:00+02:00": "2026-11-01T06:00:00Z",
	} {
		if got, err := moment(s, now); err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("moment(%q) = %v, %v, want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"", "yesterday", "-1h"} {
		if _, err := moment(s, now); err == nil {
			t.Errorf("moment(%q) is no mistake", s)
		}
	}
}

func TestLocal(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "dns:///localhost:1": true, "unix:/run/amends": true,
		"10.0.0.1:1": false, "example.com:1": false, ":1": false, "0.0.0.0:1": false, "localhost": false,
		"dns://127.0.0.1:53/example.com:1": false, "localhost.example.com:1": false, "127.0.0.1.example.com:1": false,
	} {
		if got := local(addr); got != want {
			t.Errorf("local(%q) = %v, want %v", addr, got, want)
		}
	}
}
