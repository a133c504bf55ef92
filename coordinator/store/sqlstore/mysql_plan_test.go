package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/deploy/servicestest"
)

func openInternal(t *testing.T) *Store {
	t.Helper()
	st, err := OpenMySQL(t.Context(), servicestest.MySQL(t), &Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st.(*Store)
}

// TestMySQLPlans guards on MySQL what TestQueryPlans guards on SQLite, and
// that statements with locks read no rows but their own.
func TestMySQLPlans(t *testing.T) {
	s := openInternal(t)
	populate(t, s)
	after := &store.Cursor{CreatedAt: time.Unix(5, 0), GID: "x"}
	label := map[string]string{"k": "v", "l": "w"}
	plan := func(text string, args []any) string { return mysqlPlan(t, s.reader, text, args) }
	list := func(q store.Query, c *store.Cursor) string { return plan(s.d.listQuery(q, c, 5)) }
	count := func(q store.Query) string { return plan(s.d.countQuery(q)) }
	due := func(q store.DueQuery) string { return plan(s.d.dueQuery(q)) }
	shards, now := []int{1, 2, 3}, time.Unix(9, 0)
	yes, blue := true, "blue"
	gids := []any{"t1", "t2", "t3"}
	which := ` WHERE ` + in("gid", len(gids))
	for name, c := range map[string]struct{ plan, want string }{
		"due": {due(store.DueQuery{Shards: shards, Until: now, Limit: 5}), "t amends_due_by_shard range"},
		"due after": {due(store.DueQuery{Shards: shards[:1], Until: now, AfterNext: time.Unix(5, 0), AfterGID: "x", Limit: 5}),
			"t amends_due_by_shard range"},
		"list": {list(store.Query{}, nil), "t amends_created index"},
		"list after": {list(store.Query{Name: "n", States: []uint8{1}}, after),
			"t amends_created range"},
		"live":       {list(store.Query{Unfinished: true}, nil), "t amends_live ref"},
		"live after": {list(store.Query{Unfinished: true, States: []uint8{6}}, after), "t amends_live range"},
		"label": {list(store.Query{Labels: label}, nil),
			"l PRIMARY ref: Using where; Using index\nt PRIMARY eq_ref: Using where\nx PRIMARY eq_ref"},
		"namespace":       {list(store.Query{Namespace: &blue}, nil), "t amends_namespace ref"},
		"namespace after": {list(store.Query{Namespace: &blue}, after), "t amends_namespace range"},
		"stalled":         {list(store.Query{Stalled: &yes}, nil), "t amends_stalled ref"},
		"stalled after":   {list(store.Query{Stalled: &yes, Namespace: &blue}, after), "t amends_stalled range"},
		"waits for":       {list(store.Query{WaitsFor: "banks"}, nil), "t amends_waits_for ref"},
		"waits for after": {list(store.Query{WaitsFor: "banks", Labels: label}, after), "t amends_waits_for range"},
		"count stalled":   {count(store.Query{Stalled: &yes}), "t amends_stalled ref"},
		"count waits for": {count(store.Query{WaitsFor: "banks"}), "t amends_waits_for ref"},
		"count since":     {count(store.Query{CreatedFrom: now}), "t amends_created range"},
		"count since of a namespace": {count(store.Query{CreatedFrom: now, Namespace: &blue}),
			"t amends_namespace range"},
		"count of a namespace": {count(store.Query{Namespace: &blue}), "t amends_live range: Using where; Using index"},
		"count":                {count(store.Query{}), "t amends_live range: Using where; Using index"},
		"count live":           {count(store.Query{Unfinished: true}), "t amends_live ref"},
		"epochs":               {plan(s.leases.text(256), shardNumbers(256)), "t PRIMARY range"},
		"free": {plan(fmt.Sprintf(lockFree, s.d.use(primaryKey), s.d.now, in("t.shard", 3), s.d.lock), []any{1, 2, 3}),
			"t PRIMARY range"},
		"purge":         {plan(s.d.finishedQuery(), []any{1, 500}), "t amends_live range: Using where; Using index"},
		"delete":        {plan(s.d.deleteFrom(`amends_transactions`, primaryKey)+which, gids), "t PRIMARY range"},
		"delete events": {plan(s.d.deleteFrom(`amends_events`, primaryKey)+which, gids), "t PRIMARY range"},
		"delete labels": {plan(s.d.deleteFrom(`amends_labels`, labelsByGID)+which, gids), "t amends_labels_gid range"},
	} {
		if !strings.Contains(c.plan, c.want) {
			t.Errorf("%s: the plan has no %q:\n%s", name, c.want, c.plan)
		}
		if strings.Contains(c.plan, "filesort") && !strings.HasPrefix(name, "count") {
			t.Errorf("%s: is sorted:\n%s", name, c.plan)
		}
	}
}

// shardNumbers are n different ones.
func shardNumbers(n int) (all []any) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// populate makes 1000 transactions, one in ten of them unfinished.
func populate(t *testing.T, s *Store) {
	t.Helper()
	leases, err := s.Acquire(t.Context(), "owner", time.Hour, DefaultShards)
	if err != nil {
		t.Fatal(err)
	}
	b := store.Batch{Leases: leases}
	for i := range 1000 {
		at := time.Unix(int64(i), 0)
		r := store.Record{GID: fmt.Sprintf("t%d", i), Shard: i % len(leases), Version: 1, CreatedAt: at, FinishedAt: at,
			Labels: map[string]string{"k": "v", "l": fmt.Sprint(i % 7)}}
		if i%10 == 0 {
			r.FinishedAt, r.NextAt = time.Time{}, at
		}
		b.Writes = append(b.Writes, store.Write{Record: r, Events: []store.Event{{GID: r.GID, Seq: 1}}})
	}
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// mysqlPlan returns a line per table: alias, index, how it is read, the rest.
func mysqlPlan(t *testing.T, db *sql.DB, query string, args []any) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN "+query, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var plan strings.Builder
	for rows.Next() {
		values, dest := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		of := make(map[string]string)
		for i, name := range columns {
			of[strings.ToLower(name)] = values[i].String
		}
		fmt.Fprintf(&plan, "%s %s %s: %s\n", of["table"], of["key"], of["type"], of["extra"])
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}

// TestMySQLSession: every connection, also one that replaces a lost one, is
// what the store's promises rest on.
func TestMySQLSession(t *testing.T) {
	s := openInternal(t)
	for _, db := range []*sql.DB{s.writer, s.reader} {
		rows, err := db.QueryContext(context.Background(), `SHOW VARIABLES WHERE Variable_name IN
 ('tx_isolation', 'transaction_isolation', 'autocommit', 'sql_mode', 'character_set_client', 'character_set_results')`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var name, value string
			if err := rows.Scan(&name, &value); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"tx_isolation": "READ-COMMITTED", "transaction_isolation": "READ-COMMITTED",
				"autocommit": "ON", "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
				"character_set_client": "binary", "character_set_results": "binary"}[name]
			if value != want && !(value == "" && name == "character_set_results") {
				t.Errorf("%s is %s, want %s", name, value, want)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMySQLURL(t *testing.T) {
	for text, want := range map[string]string{
		"mysql://u:p%40%2F:w@h:1/d":              "u:p@/:w@tcp(h:1)/d",
		"mysql://u@[::1]/d?tls=true":             "u@tcp([::1]:3306)/d",
		"mysql:///d":                             "tcp(127.0.0.1:3306)/d",
		"u:p@unix(/run/s)/d?readTimeout=3s":      "u:p@unix(/run/s)/d",
		"mysql://u:secret@h:port/d":              "cannot be read",
		"mysql://u:secret?x@h/d":                 "cannot be read",
		"u:secret@h/d":                           "cannot be read",
		"u:@/secret@tcp(h:1)":                    "cannot be read",
		"mysql://u:secret@h/d?tls=no-such":       "no-such",
		"mysql://u:secret@h/":                    "names no database",
		"mysql://u:secret@h/d?autocommit=0&a=b":  "sets autocommit",
		"mysql://u:secret@h/d?readTimeout=never": "invalid duration",
	} {
		conf, err := mysqlConfig(text)
		switch {
		case err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%s: %v", text, err)
		case err == nil && !strings.HasPrefix(conf.FormatDSN(), want):
			t.Errorf("%s became %s, want %s", text, conf.FormatDSN(), want)
		}
	}
}

func TestMySQLVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"8.0.11": true, "8.4.3": true, "9.1.0-commercial": true, "5.7.44-log": false, "8.0.11-TiDB-v8.5.0": true,
		"5.7.25-TiDB-v6.5.0": true, "10.11.19-MariaDB-0+deb12u1": true, "5.5.5-10.6.1-MariaDB": true,
		"10.5.29-MariaDB": false, "11.8.2-MariaDB": true, "8": true, "vitess": true,
	} {
		if err := checkVersion(version); (err == nil) != want {
			t.Errorf("%s: %v", version, err)
		}
	}
}
