package outboxtest

import (
	"database/sql"
	"fmt"

	"github.com/amends-dev/amends/outbox"
)

// testIdempotencyKeys writes the same request three times, of which two are in
// one page, and other requests around it.
func testIdempotencyKeys(e *env) {
	cfg := relayConfig()
	cfg.Keys = &Keys{}
	request := func(seq int, idem string) outbox.Message {
		m := message("k", seq)
		m.IdempotencyKey = idem
		return m
	}
	e.write(request(1, "one"), request(1, "one"), request(2, "two"), message("k", 3), message("k", 4))
	r := e.relay(e.log, cfg)
	e.empty()
	e.write(request(1, "one"), request(5, "five"))
	other := request(1, "one")
	other.Topic, other.Key = "other", "o" // the window is per topic
	e.write(other)
	e.empty()
	e.once("k", 5)
	e.once("o", 1)
	if got := r.Stats().Duplicates; got != 2 {
		e.Errorf("stats say %d duplicates, want 2", got)
	}
}

// testKeysDown has keys that fail: nothing stops.
func testKeysDown(e *env) {
	keys := &Keys{}
	keys.Fail(errDown)
	cfg := relayConfig()
	cfg.Keys = keys
	for i := 1; i <= 100; i++ {
		m := message("k", i)
		m.IdempotencyKey = fmt.Sprint(i)
		e.write(m)
	}
	r := e.relay(e.log, cfg)
	e.empty()
	e.once("k", 100)
	if r.Stats().KeysErrors == 0 {
		e.Error("the failed calls were not counted")
	}
}

// smallBox makes an outbox of ten rows and fills it.
func (e *env) smallBox(p outbox.Policy) {
	e.box = outbox.New(e.d, &outbox.Config{MaxRows: 10, Policy: p, Logger: quiet(),
		Policies: map[string]outbox.Policy{"metrics": outbox.Shed}})
	e.writeSeq("k", 1, 10)
}

func (e *env) tryWrite(msgs ...outbox.Message) error {
	return e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error { return e.box.Write(e.ctx, tx, msgs...) })
}
