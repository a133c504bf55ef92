package main_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/amends-dev/amends/sdk"
)

// withPayments serves a store in which five payments have ended: pay-1 was
// declined, the others committed.
func withPayments(t *testing.T) (addr string) {
	t.Helper()
	_, addr = serve(t, t.TempDir())
	conn := connect(t, addr)
	openBank(t, conn)
	client := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})
	for i := range 5 {
		run, err := begin(t.Context(), client, fmt.Sprintf("pay-%d", i), i == 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Wait(t.Context()); (err == nil) != (i != 1) {
			t.Fatalf("pay-%d: %v", i, err)
		}
	}
	return addr
}

// transactions decodes what `tx list --output json` prints.
func transactions(t *testing.T, out string) (gids []string, next string) {
	t.Helper()
	var list struct {
		Transactions []struct{ GID, State, Kind string }
		Next         string `json:"next_page_token"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, tx := range list.Transactions {
		gids = append(gids, tx.GID+" "+tx.State)
	}
	return gids, list.Next
}

func TestTx(t *testing.T) {
	addr := withPayments(t)
	t.Run("list", func(t *testing.T) {
		out := ok(t, "tx", "list", "--addr", addr)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != 6 || !regexp.MustCompile(`^GID +STATE +KIND +NAME +CREATED +UPDATED +WAITS FOR +CAUSE$`).MatchString(lines[0]) {
			t.Fatalf("want a heading and 5 rows, newest first, got\n%s", out)
		}
		if !regexp.MustCompile(`^pay-4  COMMITTED +saga  pay   20\S+Z  20\S+Z +$`).MatchString(lines[1]) {
			t.Errorf("first row %q", lines[1])
		}
		if !regexp.MustCompile(`^pay-1  ROLLED_BACK .*  charge: REFUSED: .*card declined$`).MatchString(lines[4]) {
			t.Errorf("fourth row %q", lines[4])
		}
		if strings.Contains(out, "\x1b") {
			t.Error("coloured where there is no terminal")
		}
	})
	t.Run("list json", func(t *testing.T) {
		gids, next := transactions(t, ok(t, "tx", "list", "--addr", addr, "--output", "json"))
		want := "pay-4 STATE_COMMITTED, pay-3 STATE_COMMITTED, pay-2 STATE_COMMITTED, pay-1 STATE_ROLLED_BACK, pay-0 STATE_COMMITTED"
		if got := strings.Join(gids, ", "); got != want || next != "" {
			t.Errorf("got %s (next %q), want %s", got, next, want)
		}
	})
	t.Run("filter", func(t *testing.T) {
		gids, _ := transactions(t, ok(t, "tx", "list", "--addr", addr, "-o", "json", "--filter", `state = "ROLLED_BACK"`))
		if len(gids) != 1 || gids[0] != "pay-1 STATE_ROLLED_BACK" {
			t.Errorf("by state: %v", gids)
		}
		gids, _ = transactions(t, ok(t, "tx", "list", "--addr", addr, "-o", "json", "--filter", `labels.order_id = "pay-3"`))
		if len(gids) != 1 || gids[0] != "pay-3 STATE_COMMITTED" {
			t.Errorf("by label: %v", gids)
		}
		gids, _ = transactions(t, ok(t, "tx", "list", "--addr", addr, "-o", "json", "--label", "order_id=pay-1", "--state", "rolled-back"))
		if len(gids) != 1 || gids[0] != "pay-1 STATE_ROLLED_BACK" {
			t.Errorf("by the flags --label and --state: %v", gids)
		}
	})
	t.Run("pages", func(t *testing.T) { listInPages(t, addr) })
	t.Run("get", func(t *testing.T) { getOne(t, addr) })
	t.Run("events", func(t *testing.T) { eventsOfOne(t, addr) })
	t.Run("errors", func(t *testing.T) { errorsOfTx(t, addr) })
}

func listInPages(t *testing.T, addr string) {
	r := amends(t, "tx", "list", "--addr", addr, "--limit", "2")
	if strings.Count(r.stdout, "\n") != 3 || !strings.Contains(r.stderr, "--page-token") {
		t.Errorf("want 2 rows and how to go on, got\n%s%s", r.stdout, r.stderr)
	}
	seen, next := transactions(t, ok(t, "tx", "list", "--addr", addr, "-o", "json", "--limit", "2"))
	for next != "" {
		var more []string
		more, next = transactions(t, ok(t, "tx", "list", "--addr", addr, "-o", "json", "--limit", "2", "--page-token", next))
		seen = append(seen, more...)
	}
	if len(seen) != 5 {
		t.Errorf("pages have %v, want all 5", seen)
	}
}

func getOne(t *testing.T, addr string) {
	out := ok(t, "tx", "get", "pay-1", "--addr", addr)
	for _, want := range []string{
		`(?m)^gid: +pay-1$`, `(?m)^state: +ROLLED_BACK$`, `(?m)^cause: +charge: REFUSED: .*card declined`, `(?m)^labels: +order_id=pay-1$`,
		`(?m)^BRANCH +ACTION +AFTER +DO +UNDO +NEXT RETRY +LEGAL NOW +LAST ERROR$`,
		`(?m)^├─ reserve +bank\.reserve +DONE +UNDONE `, `(?m)^└─ charge +bank\.charge +reserve +REFUSED +UNDONE `,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("want %s in\n%s", want, out)
		}
	}
	if out := ok(t, "tx", "get", "pay-0", "--addr", addr, "--full"); !strings.Contains(out, `{"ID":"pay-0","Decline":false}`) {
		t.Errorf("--full shows no request:\n%s", out)
	}
	var tx struct {
		GID      string
		Branches []struct{ Name, Phase string }
	}
	if err := json.Unmarshal([]byte(ok(t, "tx", "get", "pay-0", "--addr", addr, "-o", "json")), &tx); err != nil {
		t.Fatal(err)
	}
	if tx.GID != "pay-0" || len(tx.Branches) != 2 || tx.Branches[1].Phase != "DONE" {
		t.Errorf("JSON has %+v", tx)
	}
}

func eventsOfOne(t *testing.T, addr string) {
	table := ok(t, "tx", "events", "pay-0", "--addr", addr)
	if !regexp.MustCompile(`(?m)^1 +20\S+Z +started `).MatchString(table) {
		t.Errorf("want the start first in\n%s", table)
	}
	var list struct {
		Events []struct {
			Seq  string
			Type string
			Hash []byte
			Prev []byte `json:"prev_hash"`
		}
	}
	if err := json.Unmarshal([]byte(ok(t, "tx", "events", "pay-0", "--addr", addr, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Events) < 3 {
		t.Fatalf("want a start and two replies at least, got %+v", list.Events)
	}
	for i, e := range list.Events[1:] {
		if string(e.Prev) != string(list.Events[i].Hash) {
			t.Errorf("event %s is not chained to the one before it", e.Seq)
		}
	}
	if n := strings.Count(table, "\n") - 1; n != len(list.Events) {
		t.Errorf("the table has %d events, JSON %d", n, len(list.Events))
	}
	watched := ok(t, "tx", "watch", "pay-0", "--addr", addr, "-o", "json")
	if n := strings.Count(watched, "\n"); n != len(list.Events) {
		t.Errorf("watching a finished transaction shows %d events, want %d", n, len(list.Events))
	}
}

func errorsOfTx(t *testing.T, addr string) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"tx get absent --addr " + addr, 1, "NOT_FOUND"},
		{"tx events absent --addr " + addr, 1, "NOT_FOUND"},
		{"tx watch absent --addr " + addr, 1, "NOT_FOUND"},
		{"tx list --filter colour=red --addr " + addr, 2, "colour"},
		{"tx list --page-token nonsense --addr " + addr, 2, "INVALID_PAGE_TOKEN"},
		{"tx list --addr 127.0.0.1:1", 1, "no coordinator answers at 127.0.0.1:1"},
		{"tx watch x --addr 127.0.0.1:1", 1, "no coordinator answers at 127.0.0.1:1"},
	} {
		if r := amends(t, strings.Fields(c.args)...); r.code != c.code || !strings.Contains(r.stderr, c.want) {
			t.Errorf("amends %s: exit code %d, said %q; want %d and %q", c.args, r.code, r.stderr, c.code, c.want)
		}
	}
}
