package dispatch

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestTakenBackDoesNotReplaceNewer: a participant hangs with calls that it has
// not been sent. They time out, the engine asks again, and what waits then must
// still be the second attempt when the stream is given up: the engine has ended
// the first, and takes neither a refusal nor an unknown of it.
func TestTakenBackDoesNotReplaceNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		stopped := w.dial() // says hello, then never reads again
		stopped.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello("bank", "b1", 3, "bank.debit")}})
		synctest.Wait()
		var calls []Call
		for _, gid := range []string{"g0", "g1", "g2"} { // more than the stream's window: the last is not written
			c := do(gid, "bank.debit")
			c.Payload = []byte(strings.Repeat("x", 2<<20))
			calls = append(calls, c)
		}
		w.hub.Send(calls...)
		time.Sleep(11 * time.Second) // their timeout is 10 s
		if got := w.outcomes(); len(got) != 3 {
			t.Fatalf("%d outcomes, want three Unknown", len(got))
		}
		for _, c := range calls {
			w.hub.Send(again(c))
		}
		time.Sleep(10 * time.Second) // the stream is given up after 15 s
		p := w.attend(hello("bank", "b2", 10, "bank.debit"))
		for _, c := range p.take() {
			if c.GetAttempt() != 2 {
				t.Errorf("%s: attempt %d is asked again, which has ended; the engine waits for attempt 2", c.GetGid(), c.GetAttempt())
			}
		}
	})
}
