package dispatch

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

func TestBadHello(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(h *amendsv1.Hello)
		want   *amendsv1.Error
		text   string
	}{
		"version of tomorrow": {func(h *amendsv1.Hello) { h.ProtocolVersion, h.Service = 2, "" }, amendsv1.ErrProtocolVersion,
			"hello.protocol_version is 2, this coordinator speaks 1"},
		"no version":   {func(h *amendsv1.Hello) { h.ProtocolVersion = 0 }, amendsv1.ErrProtocolVersion, "is 0"},
		"no service":   {func(h *amendsv1.Hello) { h.Service = "" }, amendsv1.ErrInvalidArgument, "hello.service is empty"},
		"bad instance": {func(h *amendsv1.Hello) { h.Instance = "a b" }, amendsv1.ErrInvalidArgument, "hello.instance"},
		"no actions":   {func(h *amendsv1.Hello) { h.Actions = nil }, amendsv1.ErrInvalidArgument, "hello.actions is empty"},
		"action of another service": {func(h *amendsv1.Hello) { h.Actions[1] = "bank.debit" }, amendsv1.ErrInvalidArgument,
			`hello.actions[1] is "bank.debit", which belongs to service "bank": service "s" offers only its own, such as "s.debit"`},
		"action of a deeper service": {func(h *amendsv1.Hello) { h.Actions[1] = "s.eu.debit" }, amendsv1.ErrInvalidArgument, `"s.eu"`},
		"action without service":     {func(h *amendsv1.Hello) { h.Actions[1] = "debit" }, amendsv1.ErrInvalidArgument, "names no service"},
		"negative capacity":          {func(h *amendsv1.Hello) { h.Capacity = -1 }, amendsv1.ErrInvalidArgument, "hello.capacity is -1"},
		"capacity over the limit":    {func(h *amendsv1.Hello) { h.Capacity = 10_001 }, amendsv1.ErrInvalidArgument, "to 10000"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, w *world) {
				h := hello("s", "a", 4, "s.a", "s.b")
				tc.change(h)
				p := w.attend(h)
				err, ended := p.lost()
				if !ended || !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("the stream ended %v with %v\nwant %v … %s", ended, err, tc.want, tc.text)
				}
				if s := w.hub.Services(""); len(s) != 0 {
					t.Errorf("it became an instance: %v", s)
				}
			})
		})
	}
}

func TestWrongFirstMessage(t *testing.T) {
	for text, m := range map[string]*amendsv1.AttendRequest{
		"but it is outcomes": {Message: &amendsv1.AttendRequest_Outcomes{}},
		"but it is a ping":   {Message: &amendsv1.AttendRequest_Ping{}},
		"but it is a drain":  {Message: &amendsv1.AttendRequest_Drain{}},
		"but it is empty":    {},
	} {
		bubble(t, nil, func(t *testing.T, w *world) {
			p := w.dial()
			p.send(m)
			_, err := p.stream.Recv()
			if err = amendsv1.FromError(err); !errors.Is(err, amendsv1.ErrInvalidArgument) || !strings.Contains(err.Error(), text) {
				t.Errorf("the stream ended with %v, want %s", err, text)
			}
		})
	}
}

func TestSecondHello(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		p := w.attend(hello("s", "a", 1, "s.a"))
		w.hub.Send(do("g", "s.a"))
		p.take()
		p.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello("t", "a", 1, "t.a")}})
		err, ended := p.lost()
		if !ended || !errors.Is(err, amendsv1.ErrInvalidArgument) || !strings.Contains(err.Error(), "a second hello") {
			t.Errorf("the stream ended %v with %v", ended, err)
		}
		if got := w.outcomes(); len(got) != 1 || got[0].Outcome != txn.Unknown {
			t.Errorf("outcomes are %v", got)
		}
	})
}

func TestHeartbeat(t *testing.T) {
	bubble(t, &Config{Heartbeat: time.Second}, func(t *testing.T, w *world) {
		p := w.attend(hello("s", "a", 1, "s.a"))
		c := do("g", "s.a")
		c.Retry.CallTimeout = time.Hour
		w.hub.Send(c)
		p.take()
		p.pingFor(9*time.Second, 2900*time.Millisecond)
		if _, ended := p.lost(); ended || p.pongs != 4 {
			t.Fatalf("the stream ended %v after pings in time, %d pongs", ended, p.pongs)
		}
		start := time.Now()
		for len(w.outcomes()) == 0 && time.Since(start) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		// The last ping was 300 ms before start.
		if d := time.Since(start).Round(100 * time.Millisecond); d != 2700*time.Millisecond {
			t.Errorf("lost after another %v, want 2.7s", d)
		}
		err, ended := p.lost()
		if !ended || !errors.Is(err, amendsv1.ErrUnavailable) || !strings.Contains(err.Error(), "no message for 3s: ping every 1s") {
			t.Errorf("the stream ended %v with %v", ended, err)
		}
		status(t, w, "")
	})
}

func TestStreamWithoutHelloIsDropped(t *testing.T) {
	bubble(t, &Config{Heartbeat: time.Second}, func(t *testing.T, w *world) {
		start := time.Now()
		_, err := w.dial().stream.Recv()
		if !errors.Is(amendsv1.FromError(err), amendsv1.ErrUnavailable) || time.Since(start) != 3*time.Second {
			t.Errorf("ended after %v with %v", time.Since(start), err)
		}
	})
}

// A participant that reads nothing fills its stream's window: the write blocks,
// others go on, and the heartbeat cuts it off.
func TestHangingParticipant(t *testing.T) {
	bubble(t, &Config{Heartbeat: time.Second}, func(t *testing.T, w *world) {
		hanging := w.dial()
		hanging.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello("h", "a", 5000, "h.a")}})
		good := w.attend(hello("s", "a", 1, "s.a"))
		big := do("", "h.a")
		big.Payload = make([]byte, 10_000)
		for i := range 1000 {
			big.GID = fmt.Sprint("h", i)
			w.hub.Send(big)
		}
		status(t, w, "h: a 1000/5000, waiting 0, in flight 1000\ns: a 0/1, waiting 0, in flight 0")
		for i := range 50 {
			w.hub.Send(do(fmt.Sprint(i), "s.a"))
			calls := good.take()
			if len(calls) != 1 {
				t.Fatalf("call %d did not come through", i)
			}
			good.ok(calls...)
		}
		if n := len(w.outcomes()); n != 50 {
			t.Errorf("%d outcomes of the good service, want 50", n)
		}
		good.pingFor(4*time.Second, time.Second)
		unknown := w.outcomes()
		if s := w.hub.services[serviceKey{name: "h"}]; s == nil || len(s.streams) != 0 {
			t.Fatalf("the hanging instance is still there")
		}
		// What never left goes to another instance, without an attempt lost.
		waits := w.hub.Services("")[0].Waiting
		if len(unknown)+waits != 1000 || waits == 0 || len(unknown) == 0 {
			t.Errorf("%d unknown and %d waiting, want 1000 in all and some of both", len(unknown), waits)
		}
	})
}

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		delivered := 0
		gate := make(chan struct{})
		w := newWorld(t, &Config{Heartbeat: time.Second}, func(Outcome) {
			<-gate
			mu.Lock()
			defer mu.Unlock()
			delivered++
		})
		p := w.attend(hello("s", "a", 2, "s.a"))
		w.hub.Send(do("1", "s.a"), do("2", "s.a"), do("3", "s.a"))
		p.ok(p.take()...)
		p.pingFor(time.Minute, time.Second) // not read meanwhile, and no reason to drop the stream
		if got := p.take(); len(got) != 0 {
			t.Errorf("calls while the engine does not keep up: %v", gids(got))
		}
		if _, ended := p.lost(); ended {
			t.Error("the stream was dropped for our own silence")
		}
		close(gate)
		if got := gids(p.take()); len(got) != 1 || got[0] != "3" {
			t.Errorf("after that came %v", got)
		}
		mu.Lock()
		defer mu.Unlock()
		if delivered != 2 {
			t.Errorf("%d delivered, want 2", delivered)
		}
	})
}

// The batch that is being delivered when its stream ends is delivered whole,
// and none of it as Unknown.
func TestStreamEndsWhileDelivering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []Outcome
		gate := make(chan struct{})
		w := newWorld(t, nil, func(o Outcome) {
			<-gate
			mu.Lock()
			defer mu.Unlock()
			got = append(got, o)
		})
		p := w.attend(hello("s", "a", 4, "s.a"))
		w.hub.Send(do("1", "s.a"), do("2", "s.a"), do("3", "s.a"))
		calls := p.take()
		p.ok(calls[:2]...)
		p.ok(calls[2]) // stays unread
		synctest.Wait()
		p.cancel()
		synctest.Wait()
		close(gate)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		byGID := map[string]txn.Outcome{}
		for _, o := range got {
			byGID[o.GID] = o.Outcome
		}
		if len(got) != 3 || byGID["1"] != txn.OK || byGID["2"] != txn.OK || byGID["3"] != txn.Unknown {
			t.Errorf("outcomes are %v", got)
		}
		status(t, w, "")
	})
}

func TestBigCallsAreSentInSeveralMessages(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		c := do("", "s.a")
		c.Payload = make([]byte, 1<<20)
		for i := range 20 { // 20 MiB: more than one message may have
			c.GID = fmt.Sprint(i)
			w.hub.Send(c)
		}
		p := w.attend(hello("s", "a", 64, "s.a"))
		if calls := p.take(); len(calls) != 20 {
			err, _ := p.lost()
			t.Errorf("%d calls came, want 20 (%v)", len(calls), err)
		}
	})
}
