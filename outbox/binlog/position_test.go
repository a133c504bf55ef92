package binlog

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/amends-dev/amends/outbox"
)

func TestPositions(t *testing.T) {
	at := func(text string) position {
		t.Helper()
		p, err := parsePosition(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	m5 := at(`{"flavor":"mariadb","gtid":"0-1-5,1-1-7","file":"bin.000001","pos":100,"when":5}`)
	m6 := at(`{"flavor":"mariadb","gtid":"0-2-6,1-1-7","file":"bin.000009","pos":4}`) // behind a failover
	u5 := at(`{"flavor":"mysql","gtid":"` + sid.String() + `:1-5","file":"bin.000001","pos":100}`)
	u6 := at(`{"flavor":"mysql","gtid":"` + sid.String() + `:1-6","file":"bin.000001","pos":50}`)
	f1, f2 := at(`{"flavor":"mysql","file":"bin.000009","pos":100}`), at(`{"flavor":"mysql","file":"bin.000010","pos":4}`)
	for _, pair := range [][2]position{{m5, m6}, {u5, u6}, {f1, f2}} {
		a, b := pair[0], pair[1]
		if !b.covers(a) || a.covers(b) || !a.covers(a) {
			t.Errorf("%v and %v: the second is to be behind the first", a, b)
		}
		if got := earliest([]position{b, a, b}); got.String() != a.String() {
			t.Errorf("the earliest is %v, want %v", got, a)
		}
		text, err := b.text()
		if err != nil || at(text).String() != b.String() {
			t.Errorf("%v is stored as %s, %v", b, text, err)
		}
	}
	for _, bad := range []string{"", "{", `{"flavor":"mariadb","gtid":"x"}`, `{"flavor":"mysql","gtid":"x:y"}`} {
		if _, err := parsePosition(bad); err == nil {
			t.Errorf("%q is no position", bad)
		}
	}
}

func TestMistakes(t *testing.T) {
	_, err := New(Config{Mode: 7, MaxRows: -1, Heartbeat: 1, Check: -1, SkipLost: true})
	if !errors.Is(err, outbox.ErrConfig) {
		t.Fatal(err)
	}
	for _, name := range []string{"Addr", "User", "Database", "Mode", "MaxRows", "Heartbeat", "Check", "SkipLost"} {
		if !contains(err, "field "+name) && !contains(err, "fields "+name) {
			t.Errorf("%v: nothing about %s", err, name)
		}
	}
	srv := &server{cfg: &Config{Mode: ModeLog}, vars: map[string]string{"log_bin": "OFF", "binlog_format": "MIXED",
		"binlog_row_image": "MINIMAL", "binlog_order_commits": "OFF", "sync_binlog": "0"}}
	srv.engines[1] = "INNODB"
	if errs := srv.mistakes(); len(errs) != 6 {
		t.Errorf("%d mistakes, want 6: %v", len(errs), errs)
	}
	if flavorOf("10.11.6-MariaDB-log") != mysql.MariaDBFlavor || flavorOf("8.0.36") != mysql.MySQLFlavor {
		t.Error("the flavour of a version is wrong")
	}
	if !listed("a, b", "b") || listed("ab", "b") {
		t.Error("databases are listed wrongly")
	}
}

func TestEndangered(t *testing.T) {
	files := []string{"bin.2", "bin.3"}
	for _, tc := range []struct {
		file         string
		behind, keep time.Duration
		want         bool
	}{
		{"bin.3", time.Hour, 0, false},
		{"bin.3", time.Hour, 3 * time.Hour, false},
		{"bin.3", 2 * time.Hour, 3 * time.Hour, true},
		{"bin.2", 2 * time.Minute, 0, true},
		{"bin.2", time.Second, 0, false},
		{"bin.1", time.Second, 0, true},
		{"bin.1", 0, 0, false},
	} {
		p := position{at: mysql.Position{Name: tc.file}}
		if why := endangered(p, tc.behind, tc.keep, files); (why != "") != tc.want {
			t.Errorf("%+v: %q", tc, why)
		}
	}
}

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }
