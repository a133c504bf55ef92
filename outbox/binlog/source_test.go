package binlog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
)

// TestSource has the tests that leave the server as it is.
func TestSource(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	tests := []struct {
		name string
		mode binlog.Mode
		fn   func(h *harness)
	}{
		{"TableOrder", binlog.ModeTable, testOrder},
		{"LogOrder", binlog.ModeLog, testOrder},
		{"TableSwitching", binlog.ModeTable, testSwitching},
		{"LogInterrupted", binlog.ModeLog, testSwitching},
		{"TableRelaysComeAndGo", binlog.ModeTable, testComeAndGo},
		{"LogRelaysComeAndGo", binlog.ModeLog, testComeAndGo},
		{"LogDelaysAndPoison", binlog.ModeLog, testDelaysAndPoison},
		{"TableBulk", binlog.ModeTable, testBulk},
		{"LogBulk", binlog.ModeLog, testBulk},
		{"XA", binlog.ModeTable, testXA},
		{"OtherDatabase", binlog.ModeTable, testOtherDatabase},
		{"NotEmpty", binlog.ModeTable, testNotEmpty},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) { tc.fn(newHarness(t, server, tc.mode)) })
	}
}

// testOrder has two relays share the partitions, without any failure: nothing may
// come twice.
func testOrder(h *harness) {
	long := func(_ *binlog.Config, c *outbox.RelayConfig) { c.Lease = 30 * time.Second }
	r, other := h.relay(h.log, long), h.relay(h.log, long)
	stop := h.load(0)
	time.Sleep(2 * time.Second) // for so long there is load
	stop()
	again, total := h.result(h.log.Messages)
	if again != 0 {
		h.Errorf("%d messages came again", again)
	}
	h.empty()
	a, b := r.Stats(), other.Stats()
	got := a.Streamed + b.Streamed
	h.Logf("from the log: %d of %d; fallbacks %d, late %d",
		got, total, a.Fallbacks+b.Fallbacks, a.LateArrivals+b.LateArrivals)
	if got == 0 || h.mode == binlog.ModeLog && got < uint64(total) {
		h.Errorf("%d of %d messages came from the log", got, total)
	}
	if n := a.LeasesLost + b.LeasesLost; n > 0 {
		h.Errorf("%d leases were lost in a run without a pause", n)
	}
}

// testSwitching cuts the connection to the log again and again, begins new files,
// and lets the publisher fail some keys: back and forth between table and log.
func testSwitching(h *harness) {
	h.log.SetHook(flaky(0.02))
	r := h.relay(h.log)
	stop := h.load(2 * time.Millisecond)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		h.cut()
		if time.Now().UnixMilli()%2 == 0 {
			h.exec(`FLUSH BINARY LOGS`)
		}
	}
	stop()
	h.log.SetHook(nil)
	h.result(h.log.Messages)
	h.empty()
	s := r.Stats()
	h.Logf("sessions %d, fallbacks %d, from the log %d", r.src.Stats().Sessions, s.Fallbacks, s.Streamed)
	if r.src.Stats().Sessions < 3 || s.Streamed == 0 || h.mode == binlog.ModeTable && s.Fallbacks < 3 {
		h.Errorf("there was no switching to speak of: %+v, %+v", s, r.src.Stats())
	}
}

// flaky fails some messages, and what comes behind them of their keys.
func flaky(share float64) func(context.Context, []outbox.Message) []error {
	down := errors.New("down")
	return func(_ context.Context, msgs []outbox.Message) []error {
		errs := make([]error, len(msgs))
		failed := map[string]bool{}
		for i, m := range msgs {
			if failed[m.Key] {
				errs[i] = outbox.ErrHeld
			} else if chance(share) {
				errs[i], failed[m.Key] = down, true
			}
		}
		return errs
	}
}

// testComeAndGo ends relays in the middle of their work and starts others.
func testComeAndGo(h *harness) {
	stop := h.load(2 * time.Millisecond)
	first := h.relay(h.log)
	streamed := uint64(0)
	for range 4 {
		next := h.relay(h.log)
		h.until("some messages", func() bool { return next.Stats().Published+first.Stats().Published > 200 })
		first.stop()
		streamed += first.Stats().Streamed
		first = next
	}
	stop()
	h.result(h.log.Messages)
	h.empty()
	if streamed == 0 {
		h.Error("nothing came from the log")
	}
}

// testDelaysAndPoison has messages that cannot be published at once where no
// table holds them: they go aside or to the dead letters, and the order holds.
func testDelaysAndPoison(h *harness) {
	h.log.SetHook(func(_ context.Context, msgs []outbox.Message) []error {
		errs := make([]error, len(msgs))
		for i, m := range msgs {
			if m.Key == "poison" && string(m.Body) == "2" {
				errs[i] = outbox.Poison(errors.New("never"))
			}
		}
		return errs
	})
	r := h.relay(h.log)
	delayed := message("late", 1)
	delayed.NotBefore = time.Now().Add(2 * time.Second)
	h.must(h.box.Tx(h.Context(), h.db, func(tx *sql.Tx) error {
		return h.box.Write(h.Context(), tx, delayed, message("late", 2),
			message("poison", 1), message("poison", 2), message("poison", 3))
	}))
	h.until("the others", func() bool { return r.Stats().Dead == 1 && h.log.Len() >= 2 })
	r.stop() // whoever goes on knows where they are
	h.relay(h.log)
	h.until("the delayed ones", func() bool { return h.log.Len() == 4 })
	got := map[string]string{}
	for _, m := range h.log.Messages() {
		got[m.Key] += string(m.Body)
	}
	if got["poison"] != "13" || got["late"] != "12" {
		h.Errorf("published %v, want 1 and 3, 1 and 2", got)
	}
}

// testBulk commits more at once than streams hold.
func testBulk(h *harness) {
	small := func(c *binlog.Config, r *outbox.RelayConfig) { c.MaxRows, r.Lease = 100, 30*time.Second }
	r := h.relay(h.log, small)
	h.following(r)
	const n = 1500
	for range 3 {
		h.must(h.box.Tx(h.Context(), h.db, func(tx *sql.Tx) error {
			if _, err := tx.Exec(`UPDATE counters SET seq = seq + ? WHERE k = 0`, n); err != nil {
				return err
			}
			var last int
			if err := tx.QueryRow(`SELECT seq FROM counters WHERE k = 0`).Scan(&last); err != nil {
				return err
			}
			var msgs []outbox.Message
			for i := last - n + 1; i <= last; i++ {
				msgs = append(msgs, message(keyName(0), i))
			}
			return h.box.Write(h.Context(), tx, msgs...)
		}))
		h.cut()
	}
	if again, _ := h.result(h.log.Messages); again > 0 {
		h.Errorf("%d messages came again", again)
	}
	h.empty()
}

// testXA writes in an XA transaction, which is in the log before it is committed.
func testXA(h *harness) {
	r := h.relay(h.log)
	h.following(r)
	probes := h.log.Len()
	conn, err := h.db.Conn(h.Context())
	h.must(err)
	defer conn.Close()
	exec := func(q string) {
		h.Helper()
		_, err := conn.ExecContext(h.Context(), q)
		h.must(err)
	}
	const insert = `INSERT INTO amends_outbox_0 (msg_id, topic, msg_key, body, headers, idem_key, created_at)
VALUES ('%[1]s', 't', 'xa', '%[1]s', '', '', 1)`
	for _, end := range []string{"XA ROLLBACK 'a'", "XA COMMIT 'a'"} {
		exec("XA START 'a'")
		exec(fmt.Sprintf(insert, end[3:9]))
		exec("XA END 'a'")
		exec("XA PREPARE 'a'")
		exec(end)
	}
	exec(fmt.Sprintf(insert, "last"))
	var got []string
	h.until("both messages", func() bool {
		got = nil
		for _, m := range h.log.Messages()[min(probes, h.log.Len()):] {
			if m.Key == "xa" {
				got = append(got, string(m.Body))
			}
		}
		return len(got) == 2
	})
	if fmt.Sprint(got) != "[COMMIT last]" {
		h.Errorf("published %v", got)
	}
	h.empty()
}

func testOtherDatabase(h *harness) {
	other := newHarness(h.TB, h.server, binlog.ModeTable)
	out := &lines{}
	h.out = out.handler()
	h.relay(h.log, func(c *binlog.Config, _ *outbox.RelayConfig) { c.Database = other.config().Database })
	other.write("k", 1)
	h.until("the reason", func() bool { return strings.Contains(out.String(), "lead to another database than") })
	h.write("k", 2)
	h.until("its own message", func() bool { return h.log.Len() == 1 })
	if got := string(h.log.Messages()[0].Body); got != "2" {
		h.Errorf("message %s was published, of another database", got)
	}
}

func testNotEmpty(h *harness) {
	h.write("k", 1)
	if err := binlog.Convert(h.Context(), h.db, h.config()); !errors.Is(err, binlog.ErrNotEmpty) {
		h.Errorf("Convert with a message in a table: %v", err)
	}
	h.relay(h.log)
	h.until("the message", func() bool { return h.log.Len() == 1 })
}
