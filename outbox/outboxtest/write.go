package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/amends-dev/amends/outbox"
)

func testMigrate(e *env) {
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = outbox.Migrate(e.ctx, e.db, e.d) })
	}
	wg.Wait()
	e.must(errors.Join(errs...))
}

func testCommittedInOrder(e *env) {
	for _, key := range []string{"a", "b", "c"} {
		e.writeSeq(key, 1, 20)
	}
	r := e.relay(e.log, relayConfig())
	for _, key := range []string{"a", "b", "c"} {
		e.writeSeq(key, 21, 40)
	}
	e.empty()
	r.stop()
	for _, key := range []string{"a", "b", "c"} {
		e.once(key, 40)
	}
	if got := r.Stats().Published; got != 120 {
		e.Errorf("stats say %d published, want 120", got)
	}
}

func testRolledBackNever(e *env) {
	e.relay(e.log, relayConfig())
	sentinel := errors.New("changed my mind")
	for range 10 {
		e.is(e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error {
			e.must(e.box.Write(e.ctx, tx, message("never", 1)))
			return sentinel
		}), sentinel)
		e.write(message("", 1))
	}
	e.empty()
	if n := e.log.Len(); n != 10 {
		e.Fatalf("%d messages were published, want 10", n)
	}
	e.once("never", 0)
}

// testWriteMany has one Write that needs several statements for each partition,
// because of the number of messages and of their size.
func testWriteMany(e *env) {
	const keys, each = 7, 150
	var msgs []outbox.Message
	for i := 1; i <= each; i++ {
		for k := range keys {
			m := message(fmt.Sprint("k", k), i)
			if i%40 == 0 {
				m.Headers = map[string]string{"fill": strings.Repeat("f", 600_000)}
			}
			msgs = append(msgs, m)
		}
	}
	e.write(msgs...)
	if rows := e.depth().Rows; rows != keys*each {
		e.Fatalf("%d rows, want %d", rows, keys*each)
	}
	e.relay(e.log, relayConfig())
	e.empty()
	for k := range keys {
		e.once(fmt.Sprint("k", k), each)
	}
}

func testAnyBytes(e *env) {
	body := make([]byte, 256)
	for i := range body {
		body[i] = byte(i)
	}
	want := outbox.Message{
		ID: "id\xff'\"\\", Topic: "bytes", Key: "\x01k\xfe;--'", Body: body, IdempotencyKey: "i\x80",
		Headers: map[string]string{"trace": "\x00\xff", "empty": "", "ü": "ß"},
	}
	e.write(want, outbox.Message{Topic: "bytes"})
	e.relay(e.log, relayConfig())
	e.empty()
	e.until("both messages", func() bool { return e.log.Len() == 2 })
	for _, got := range e.log.Messages() {
		if got.CreatedAt.IsZero() || got.ID == "" {
			e.Errorf("message %+v has no time or id", got)
		}
		if got.Key == "" {
			if len(got.Body) != 0 || len(got.Headers) != 0 {
				e.Errorf("the empty message came as %+v", got)
			}
			continue
		}
		same := got.ID == want.ID && got.Topic == want.Topic && got.Key == want.Key &&
			string(got.Body) == string(want.Body) && got.IdempotencyKey == want.IdempotencyKey && len(got.Headers) == 3
		for name, value := range want.Headers {
			same = same && got.Headers[name] == value
		}
		if !same {
			e.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func testIllegalMessages(e *env) {
	tests := []struct{ name, want string }{
		{"no topic", "Topic is empty"},
		{"topic", "Topic \"a b\""},
		{"long topic", "Topic is 250 bytes long"},
		{"nul in key", "Key \"a\\x00\" holds a NUL byte"},
		{"long key", "Key is 1025 bytes long"},
		{"long id", "ID is 129 bytes long"},
		{"header", "Headers has an entry without a name"},
		{"size", "raise Config.MaxMessage"},
	}
	msgs := map[string]outbox.Message{
		"no topic":   {},
		"topic":      {Topic: "a b"},
		"long topic": {Topic: strings.Repeat("t", 250)},
		"nul in key": {Topic: "t", Key: "a\x00"},
		"long key":   {Topic: "t", Key: strings.Repeat("k", 1025)},
		"long id":    {Topic: "t", ID: strings.Repeat("i", 129)},
		"header":     {Topic: "t", Headers: map[string]string{"": "x"}},
		"size":       {Topic: "t", Body: make([]byte, 1<<20)},
	}
	for _, tc := range tests {
		e.Run(tc.name, func(t *testing.T) {
			err := e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error {
				return e.box.Write(e.ctx, tx, message("fine", 1), msgs[tc.name])
			})
			if !errors.Is(err, outbox.ErrMessage) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
	if rows := e.depth().Rows; rows != 0 {
		e.Errorf("%d rows were left behind", rows)
	}
}

// testTxEnds checks that Tx leaves no transaction open, on any way out.
func testTxEnds(e *env) {
	e.db.SetMaxOpenConns(1) // a transaction left open would block everything
	func() {
		defer func() {
			if recover() == nil {
				e.Error("the panic did not come through")
			}
		}()
		e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error {
			e.must(e.box.Write(e.ctx, tx, message("panic", 1)))
			panic("on purpose")
		})
	}()
	ctx, cancel := context.WithCancel(e.ctx)
	err := e.box.Tx(ctx, e.db, func(tx *sql.Tx) error {
		e.must(e.box.Write(ctx, tx, message("cancelled", 1)))
		cancel()
		return nil
	})
	if err == nil {
		e.Error("a commit with a cancelled context reported success")
	}
	e.write(message("after", 1))
	if rows := e.depth().Rows; rows != 1 {
		e.Errorf("%d rows, want only the last one", rows)
	}
}
