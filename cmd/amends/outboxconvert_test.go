package main_test

import (
	"strings"
	"testing"

	"github.com/amends-dev/amends/deploy/servicestest"
)

// TestOutboxConvert makes tables that keep nothing, once they are empty.
func TestOutboxConvert(t *testing.T) {
	t.Parallel()
	server := servicestest.StartMySQL(t, "--log-bin=bin", "--binlog-format=ROW", "--server-id=1",
		"--sync-binlog=1", "--plugin-load-add=ha_blackhole")
	dsn := servicestest.NewDatabase(t, server.Addr)
	db := openMySQL(t, dsn)
	env := environ("AMENDS_MYSQL_DSN=" + dsn)
	if r := amendsIn(t, env, "migrate", "outbox"); r.code != 0 {
		t.Fatalf("migrate: %s", r.stderr)
	}
	if _, err := db.Exec(`INSERT INTO amends_outbox_0 (msg_id, topic, msg_key, body, headers, idem_key, created_at)
VALUES ('1', 't', 'k', '', '', '', 0)`); err != nil {
		t.Fatal(err)
	}
	if r := amendsIn(t, env, "outbox", "convert"); r.code != 1 || !strings.Contains(r.stderr, "amends outbox depth") {
		t.Errorf("with a message in a table: exit code %d, %s", r.code, r.stderr)
	}
	if _, err := db.Exec(`DELETE FROM amends_outbox_0`); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := amendsIn(t, env, "outbox", "convert"); r.code != 0 || !strings.Contains(r.stdout, "--binlog log") {
			t.Errorf("exit code %d, %s%s", r.code, r.stdout, r.stderr)
		}
	}
	var engine string
	if err := db.QueryRow(`SELECT engine FROM information_schema.tables WHERE table_schema = DATABASE()
AND table_name = 'amends_outbox_0'`).Scan(&engine); err != nil || engine != "BLACKHOLE" {
		t.Errorf("the engine is %q, %v", engine, err)
	}
	if r := amends(t, "outbox", "convert", "--sqlite", "x.db"); r.code != 2 || !strings.Contains(r.stderr, "--mysql") {
		t.Errorf("for SQLite: exit code %d, %s", r.code, r.stderr)
	}
}
