package main

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/amends-dev/amends/examples/shop/internal/check"
	"github.com/amends-dev/amends/examples/shop/internal/demo"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// The invariants.
const (
	money   = "money conserved"
	stock   = "stock conserved"
	rewards = "rewards whole"
	ended   = "no order in between"
	once    = "each message handled once"
	ghosts  = "no message of a rolled-back transaction"
	chains  = "audit chains unbroken"
)

const (
	coordinatorDB = "coordinator/amends.db"
	ofOne         = ` WHERE customer = (SELECT min(customer) FROM account)`
	cups          = ` WHERE product = 'cup'`
	aConfirmed    = ` WHERE id = (SELECT min(id) FROM orders WHERE state = 'confirmed' AND gift = '')`
	aMail         = ` WHERE n = (SELECT min(n) FROM mail WHERE topic = 'orders.confirmed')`
	aSaga         = ` WHERE gid = (SELECT min(gid) FROM amends_transactions WHERE kind = 'saga')`
)

type tamper struct {
	database, change string
	broken           []string
}

func tampering() map[string]tamper {
	return map[string]tamper{
		"nothing": {"order.db", `SELECT 1`, nil},
		"charged twice": {"payment.db", `
			INSERT INTO capture (order_id, customer, cents) SELECT order_id, customer, cents FROM capture LIMIT 1;
			UPDATE account SET cents = account.cents - c.cents FROM (SELECT * FROM capture ORDER BY n DESC LIMIT 1) AS c
			WHERE account.customer = c.customer`, []string{money}},
		"not charged":       {"payment.db", `DELETE FROM capture WHERE n = (SELECT max(n) FROM capture)`, []string{money}},
		"a cent is missing": {"payment.db", `UPDATE account SET cents = cents - 1` + ofOne, []string{money}},
		"points twice":      {"payment.db", `UPDATE account SET points = points + 1` + ofOne, []string{rewards}},
		"points held":       {"payment.db", `UPDATE account SET points_held = 7` + ofOne, []string{rewards}},
		"shipped twice":     {"inventory.db", `UPDATE stock SET shelf = shelf - 1, gone = gone + 1` + cups, []string{stock}},
		"held for ever":     {"inventory.db", `UPDATE stock SET shelf = shelf - 1, held = held + 1` + cups, []string{stock}},
		"half a reward": {"order.db", `UPDATE orders SET reward = 'refused'
			WHERE id = (SELECT min(id) FROM orders WHERE reward = 'given')`, []string{stock, rewards}},
		"reward in between": {"order.db", `UPDATE orders SET reward = 'due' WHERE reward = 'refused'`, []string{ended}},
		"order in between": {"order.db", `UPDATE orders SET state = 'open'` + aConfirmed,
			[]string{money, stock, ended, ghosts}},
		"order disagrees": {"order.db", `UPDATE orders SET state = 'rejected'` + aConfirmed,
			[]string{money, stock, ended, once, ghosts}},
		"order is lost": {"order.db", `DELETE FROM orders` + aConfirmed, []string{money, stock, ended, ghosts}},
		"stuck in the outbox": {"order.db", `
			INSERT INTO amends_outbox_0 (msg_id, topic, msg_key, body, headers, idem_key, created_at)
			VALUES (x'01', 't', x'', x'', x'', x'', 0)`, []string{ended}},
		"message lost": {"notification.db", `DELETE FROM mail` + aMail, []string{once}},
		"handled twice": {"notification.db", `INSERT INTO mail (message_id, topic, order_id, text)
			SELECT message_id, topic, order_id, text FROM mail` + aMail, []string{once}},
		"made-up mail": {"notification.db", `INSERT INTO mail (message_id, topic, order_id, text)
			VALUES ('x', 'orders.placed', '1', '')`, []string{once}},
		"still running": {coordinatorDB, `UPDATE amends_transactions SET state = 1` + aSaga, []string{ended}},
		"trail edited": {coordinatorDB, `UPDATE amends_transactions SET trail = replace(trail, '"op":"do"', '"op":"DO"')` + aSaga,
			[]string{chains}},
		"trail cut": {coordinatorDB, `UPDATE amends_transactions SET trail = substr(trail, 1, instr(trail, '{"seq":3,') - 1)` + aSaga,
			[]string{chains}},
		"trail empty": {coordinatorDB, `UPDATE amends_transactions SET trail = ''` + aSaga, []string{chains}},
		"entry taken": {coordinatorDB, `UPDATE amends_transactions SET trail = substr(trail, instr(trail, '{"seq":2,'))` + aSaga,
			[]string{chains}},
		"entry put in": {coordinatorDB, `INSERT INTO amends_events (gid, seq, at, type, data, prev, hash)
			SELECT gid, 2, 0, 'replied', x'7b7d', x'00', x'00' FROM amends_transactions` + aSaga, []string{chains}},
	}
}

// TestCheckerFindsWhatIsWrong does by hand what must never happen, to the
// databases that a demo left behind, and wants the checker to find it.
func TestCheckerFindsWhatIsWrong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	code, stdout, stderr := shop(t, "demo", "--amends", amendsProgram, "--orders", someOrders(t, 60), "--dir", dir)
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	kafka, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Dir: filepath.Join(dir, "kafka")})
	if err != nil {
		t.Fatal(err)
	}
	defer kafka.Close()
	for name, c := range tampering() {
		t.Run(name, func(t *testing.T) {
			tampered := t.TempDir()
			if err := os.CopyFS(tampered, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			change(t, filepath.Join(tampered, c.database), c.change)
			figures, err := check.Run(t.Context(), demo.Embedded(tampered, kafka.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			var broken []string
			for _, i := range figures.Invariants {
				if !i.Holds() {
					broken = append(broken, i.Name)
				}
			}
			if !slices.Equal(broken, c.broken) {
				t.Errorf("broken: %q, want %q\n%+v", broken, c.broken, figures.Invariants)
			}
		})
	}
}

func change(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}
