package main_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/deploy/servicestest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

// auditRow is one event of a trail.
type auditRow struct {
	gid              string
	seq, at          int64
	kind             string
	data, prev, hash []byte
}

// rehash makes a row's hash right again, as somebody who knows how would.
func (r auditRow) rehash() auditRow {
	r.hash = amendsv1.AuditHash(r.prev, "", r.gid, r.seq, time.UnixMicro(r.at), r.kind, r.data)
	return r
}

// forgeries are what somebody may do to the events of a trail, and what verify has
// to say about it: the first broken event and a word about it.
var forgeries = map[string]struct {
	forge func(rows []auditRow) []auditRow
	seq   int64
	says  string
}{
	"edited-data": {func(r []auditRow) []auditRow {
		r[1].data = []byte(strings.Replace(string(r[1].data), `"ok"`, `"no"`, 1))
		return r
	}, 2, "changed"},
	"edited-type": {func(r []auditRow) []auditRow { r[1].kind = "abort"; return r }, 2, "changed"},
	"edited-time": {func(r []auditRow) []auditRow { r[0].at--; return r }, 1, "changed"},
	"edited-hash": {func(r []auditRow) []auditRow { r[2].hash[0] ^= 1; return r }, 3, "changed"},
	"edited-prev": {func(r []auditRow) []auditRow { r[2].prev[0] ^= 1; return r }, 3, "changed"},
	"rehashed": {func(r []auditRow) []auditRow {
		r[1].at++
		r[1] = r[1].rehash()
		return r
	}, 3, "does not follow event 2"},
	"rehashed-last": {func(r []auditRow) []auditRow {
		r[len(r)-1].at++
		r[len(r)-1] = r[len(r)-1].rehash()
		return r
	}, 3, "not the one that the transaction has"},
	"rehashed-all": {func(r []auditRow) []auditRow {
		r[0].at++
		for i := range r {
			if i > 0 {
				r[i].prev = r[i-1].hash
			}
			r[i] = r[i].rehash()
		}
		return r
	}, 3, "not the one that the transaction has"},
	"deleted-first":  {func(r []auditRow) []auditRow { return r[1:] }, 1, "missing: event 2 comes next"},
	"deleted-middle": {func(r []auditRow) []auditRow { return slices.Delete(r, 1, 2) }, 2, "missing: event 3 comes next"},
	"deleted-last":   {func(r []auditRow) []auditRow { return r[:2] }, 3, "missing: the trail ends with event 2"},
	"deleted-all":    {func([]auditRow) []auditRow { return nil }, 1, "missing: the trail ends with event 0"},
	"renumbered": {func(r []auditRow) []auditRow {
		r = slices.Delete(r, 1, 2)
		r[1].seq = 2
		return r
	}, 2, "changed"},
	"inserted-middle": {func(r []auditRow) []auditRow {
		r = slices.Insert(r, 1, auditRow{r[0].gid, 2, r[0].at, "skip", []byte("{}"), r[0].hash, nil}.rehash())
		for i := 2; i < len(r); i++ {
			r[i].seq++
		}
		return r
	}, 3, "changed"},
	"inserted-last": {func(r []auditRow) []auditRow {
		last := r[len(r)-1]
		return append(r, auditRow{last.gid, last.seq + 1, last.at, "skip", []byte("{}"), last.hash, nil}.rehash())
	}, 4, "put in"},
	"reordered": {func(r []auditRow) []auditRow {
		r[1].seq, r[2].seq = r[2].seq, r[1].seq
		return r
	}, 2, "changed"},
	"reordered-rehashed": {func(r []auditRow) []auditRow {
		r[1].seq, r[2].seq = r[2].seq, r[1].seq
		r[1], r[2] = r[1].rehash(), r[2].rehash()
		return r
	}, 2, "does not follow event 1"},
}

// forge does one forgery to the trail of the transaction of that name, which is
// in its row: JSON, one event a line.
func forge(t *testing.T, db *sql.DB, gid string, how func([]auditRow) []auditRow) {
	t.Helper()
	type line struct {
		Seq  int64           `json:"seq"`
		At   int64           `json:"at"`
		Type string          `json:"type"`
		Prev []byte          `json:"prev"`
		Hash []byte          `json:"hash"`
		Data json.RawMessage `json:"data"`
	}
	var trail string
	if err := db.QueryRowContext(t.Context(), `SELECT trail FROM amends_transactions WHERE gid = ?`, gid).Scan(&trail); err != nil {
		t.Fatal(err)
	}
	var rows []auditRow
	for text := range strings.Lines(trail) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v in %s", gid, err, text)
		}
		rows = append(rows, auditRow{gid, l.Seq, l.At, l.Type, l.Data, l.Prev, l.Hash})
	}
	if len(rows) != 3 {
		t.Fatalf("%s: %d events, want 3:\n%s", gid, len(rows), trail)
	}
	var forged strings.Builder
	for _, r := range how(rows) {
		text, err := json.Marshal(line{r.seq, r.at, r.kind, append([]byte{}, r.prev...), r.hash, r.data})
		if err != nil {
			t.Fatal(err)
		}
		forged.Write(append(text, '\n'))
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE amends_transactions SET trail = ? WHERE gid = ?`, forged.String(), gid); err != nil {
		t.Fatal(err)
	}
}

// verified decodes what `audit verify --output json` prints: what is broken, by
// gid, and how much was looked at.
func verified(t *testing.T, r result) (broken map[string]string, transactions, events int) {
	t.Helper()
	var found struct {
		Transactions, Events int
		Broken               []struct {
			GID     string
			Seq     int64
			Problem string
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil {
		t.Fatalf("exit code %d: %v in %q\n%s", r.code, err, r.stdout, r.stderr)
	}
	broken = map[string]string{}
	for _, b := range found.Broken {
		if broken[b.GID] != "" {
			t.Errorf("%s is reported twice", b.GID)
		}
		broken[b.GID] = fmt.Sprintf("%d: %s", b.Seq, b.Problem)
	}
	return broken, found.Transactions, found.Events
}

// checkForgeries compares what verify found with what was forged.
func checkForgeries(t *testing.T, what string, broken map[string]string) {
	t.Helper()
	for gid, f := range forgeries {
		if got := broken[gid]; !strings.HasPrefix(got, fmt.Sprintf("%d: ", f.seq)) || !strings.Contains(got, f.says) {
			t.Errorf("%s: %s: found %q, want event %d, %q", what, gid, got, f.seq, f.says)
		}
	}
	for gid := range broken {
		if _, forged := forgeries[gid]; !forged {
			t.Errorf("%s: %s is said to be broken: %s", what, gid, broken[gid])
		}
	}
}

// runPayments runs a payment for each forgery, and two more, to their ends. Each
// has three events.
func runPayments(t *testing.T, addr string) {
	t.Helper()
	conn := connect(t, addr)
	openBank(t, conn)
	client := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})
	for _, gid := range append(slices.Collect(maps.Keys(forgeries)), "whole-1", "whole-2") {
		run, err := begin(t.Context(), client, gid, false)
		if err == nil {
			err = run.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// auditing is a store whose coordinator can be stopped, forged and started.
type auditing struct {
	start func() (*process, string)
	open  func() *sql.DB
}

func (a auditing) check(t *testing.T) {
	p, addr := a.start()
	runPayments(t, addr)
	total := len(forgeries) + 2
	before := filepath.Join(t.TempDir(), "before.jsonl")
	if err := os.WriteFile(before, []byte(ok(t, "audit", "export", "--addr", addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--all", "--addr", addr}, {"--file", before}} {
		broken, n, events := verified(t, amends(t, append([]string{"audit", "verify", "-o", "json"}, args...)...))
		if len(broken) != 0 || n != total || events != 3*total {
			t.Errorf("verify %v: %v, %d transactions, %d events; want %d, %d", args, broken, n, events, total, 3*total)
		}
	}
	if code := p.stop(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	db := a.open()
	for gid, f := range forgeries {
		forge(t, db, gid, f.forge)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, addr = a.start()
	r := amends(t, "audit", "verify", "--all", "-o", "json", "--addr", addr)
	broken, _, _ := verified(t, r)
	checkForgeries(t, "store", broken)
	if r.code != 1 || !strings.Contains(r.stderr, fmt.Sprintf("broken in %d of %d transactions; the first: transaction ", len(forgeries), total)) {
		t.Errorf("exit code %d, said %q", r.code, r.stderr)
	}
	a.checkAgainst(t, addr, before)
	for gid, code := range map[string]int{"whole-1": 0, "rehashed-last": 1, "deleted-all": 1} {
		if r := amends(t, "audit", "verify", gid, "--addr", addr); r.code != code {
			t.Errorf("verify %s: exit code %d, want %d\n%s%s", gid, r.code, code, r.stdout, r.stderr)
		}
	}
	after := filepath.Join(t.TempDir(), "after.jsonl")
	if r := amends(t, "audit", "export", "--addr", addr); r.code != 1 || os.WriteFile(after, []byte(r.stdout), 0o600) != nil {
		t.Errorf("export of broken trails: exit code %d, want 1", r.code)
	}
	broken, _, _ = verified(t, amends(t, "audit", "verify", "--file", after, "-o", "json"))
	broken["deleted-all"] = "1: missing: the trail ends with event 0" // it has no line; the export itself said so
	checkForgeries(t, "export", broken)
}

// checkAgainst writes a trail anew, head and all: only an export tells.
func (a auditing) checkAgainst(t *testing.T, addr, before string) {
	t.Helper()
	db := a.open()
	defer db.Close()
	const gid = "whole-2"
	var head []byte
	forge(t, db, gid, func(r []auditRow) []auditRow {
		r = forgeries["rehashed-all"].forge(r)
		head = r[len(r)-1].hash
		return r
	})
	if _, err := db.ExecContext(t.Context(), `UPDATE amends_transactions SET event_hash = ? WHERE gid = ?`, head, gid); err != nil {
		t.Fatal(err)
	}
	ok(t, "audit", "verify", gid, "--addr", addr)
	r := amends(t, "audit", "verify", "whole-1", gid, "--addr", addr, "--against", before, "-o", "json")
	broken, n, _ := verified(t, r)
	if r.code != 1 || n != 2 || len(broken) != 1 || !strings.HasPrefix(broken[gid], "3: is not the one in the export") {
		t.Errorf("exit code %d, broken: %v", r.code, broken)
	}
	if _, err := db.ExecContext(t.Context(), `DELETE FROM amends_transactions WHERE gid = ?`, gid); err != nil {
		t.Fatal(err)
	}
	r = amends(t, "audit", "verify", "--all", "--addr", addr, "--against", before)
	if !strings.Contains(r.stderr, "1 transactions of the earlier export are gone") {
		t.Errorf("said %q, want that one is gone", r.stderr)
	}
}

// TestAuditFindsForgeriesOnSQLite edits the rows of a coordinator that is
// stopped in every way there is.
func TestAuditFindsForgeriesOnSQLite(t *testing.T) {
	dir := t.TempDir()
	auditing{
		start: func() (*process, string) { return serve(t, dir) },
		open: func() *sql.DB {
			files, err := filepath.Glob(filepath.Join(dir, "*.db"))
			if err != nil || len(files) != 1 {
				t.Fatalf("databases in %s: %v, %v", dir, files, err)
			}
			db, err := sql.Open("sqlite", files[0])
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
	}.check(t)
}

// TestAuditFindsForgeriesOnMySQL does the same on a real server.
func TestAuditFindsForgeriesOnMySQL(t *testing.T) {
	dsn := servicestest.MySQL(t)
	auditing{
		start: func() (*process, string) { return serveMySQL(t, dsn) },
		open: func() *sql.DB {
			db, err := sql.Open("mysql", dsn)
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
	}.check(t)
}

// TestAuditExportSelects exports what flags select, and says what it did.
func TestAuditExportSelects(t *testing.T) {
	addr := withPayments(t)
	r := amends(t, "audit", "export", "--addr", addr, "--label", "order_id=pay-1", "--since", "1h")
	if n := strings.Count(r.stdout, "\n"); r.code != 0 || n < 3 || n != strings.Count(r.stdout, `"gid":"pay-1"`) {
		t.Errorf("exit code %d, %d lines, want the trail of pay-1:\n%s", r.code, n, r.stdout)
	}
	if !strings.Contains(r.stderr, "events of 1 transactions") {
		t.Errorf("said %q", r.stderr)
	}
	if r := amends(t, "audit", "verify", "absent", "--addr", addr); r.code != 1 || !strings.Contains(r.stderr, "NOT_FOUND") {
		t.Errorf("exit code %d, said %q; want 1 and NOT_FOUND", r.code, r.stderr)
	}
}
