package sqlstore

import (
	"database/sql"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// TestQueryPlans guards that history does not slow the live set down: each of
// these queries must be served by its index, in the order of the index.
func TestQueryPlans(t *testing.T) {
	st, err := OpenSQLite(t.Context(), t.TempDir(), &Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s := st.(*Store)
	after := &store.Cursor{CreatedAt: time.Unix(5, 0), GID: "x"}
	label := map[string]string{"k": "v", "l": "w"}
	type query struct {
		text string
		args []any
	}
	list := func(q store.Query, c *store.Cursor) query {
		text, args := s.d.listQuery(q, c, 5)
		return query{text, args}
	}
	count := func(q store.Query) query { text, args := s.d.countQuery(q); return query{text, args} }
	due := func(q store.DueQuery) query { text, args := s.d.dueQuery(q); return query{text, args} }
	shards, now := []int{1, 2, 3}, time.Unix(9, 0)
	yes, blue := true, "blue"
	for name, c := range map[string]struct {
		query
		want []string
	}{
		"due": {due(store.DueQuery{Shards: shards, Until: now}),
			[]string{"INDEX amends_due_by_shard (shard=? AND next_at<?)"}},
		"due from": {due(store.DueQuery{Shards: shards, From: now, Until: now}),
			[]string{"amends_due_by_shard (shard=? AND next_at>? AND next_at<?)"}},
		"due after": {due(store.DueQuery{Shards: shards[:1], Until: now, AfterNext: now, AfterGID: "x"}),
			[]string{"amends_due_by_shard (shard=? AND next_at>? AND next_at<?)"}},
		"list": {list(store.Query{}, nil), []string{"INDEX amends_created"}},
		"list after": {list(store.Query{}, after),
			[]string{"INDEX amends_created (created_at<?)"}},
		"list by name": {list(store.Query{Name: "n", States: []uint8{1}}, after),
			[]string{"INDEX amends_created (created_at<?)"}},
		"live": {list(store.Query{Unfinished: true}, nil), []string{"INDEX amends_live"}},
		"live after": {list(store.Query{Unfinished: true, States: []uint8{6}}, after),
			[]string{"INDEX amends_live (created_at<?)"}},
		"label": {list(store.Query{Labels: label}, nil),
			[]string{"l USING PRIMARY KEY (name=? AND value=?)", "SEARCH x USING"}},
		"label after": {list(store.Query{Labels: label}, after),
			[]string{"l USING PRIMARY KEY (name=? AND value=? AND created_at<?)"}},
		"namespace":       {list(store.Query{Namespace: &blue}, nil), []string{"amends_namespace (namespace=?)"}},
		"namespace after": {list(store.Query{Namespace: &blue}, after), []string{"amends_namespace (namespace=? AND created_at<?)"}},
		"live of a namespace": {list(store.Query{Namespace: &blue, Unfinished: true}, after),
			[]string{"INDEX amends_live (created_at<?)"}},
		"stalled":       {list(store.Query{Stalled: &yes}, nil), []string{"INDEX amends_stalled"}},
		"stalled after": {list(store.Query{Stalled: &yes, Namespace: &blue}, after), []string{"INDEX amends_stalled (created_at<?)"}},
		"waits for":     {list(store.Query{WaitsFor: "banks"}, nil), []string{"INDEX amends_waits_for (waits_for=?)"}},
		"waits for after": {list(store.Query{WaitsFor: "banks", Stalled: &yes, Labels: label}, after),
			[]string{"INDEX amends_waits_for (waits_for=? AND created_at<?)"}},
		"count stalled":   {count(store.Query{Stalled: &yes}), []string{"INDEX amends_stalled"}},
		"count waits for": {count(store.Query{WaitsFor: "banks"}), []string{"INDEX amends_waits_for (waits_for=?)"}},
		"count since":     {count(store.Query{CreatedFrom: now}), []string{"INDEX amends_created (created_at>?)"}},
		"count since of a namespace": {count(store.Query{CreatedFrom: now, Namespace: &blue}),
			[]string{"INDEX amends_namespace (namespace=? AND created_at>?)"}},
		"count of a namespace": {count(store.Query{Namespace: &blue}), []string{"INDEX amends_live", "COVERING INDEX amends_ended"}},
		"count":                {count(store.Query{}), []string{"INDEX amends_live", "COVERING INDEX amends_ended"}},
		"purge": {query{s.d.finishedQuery(), []any{1, 500}},
			[]string{"COVERING INDEX amends_ended (finished_at<?)"}},
		"count live":     {count(store.Query{Unfinished: true}), []string{"INDEX amends_live"}},
		"count by label": {count(store.Query{Labels: label}), []string{"l USING PRIMARY KEY (name=? AND value=?)"}},
	} {
		plan := explain(t, s.reader, c.text, c.args)
		for _, want := range c.want {
			if !strings.Contains(plan, want) {
				t.Errorf("%s: the plan has no %q:\n%s", name, want, plan)
			}
		}
		if strings.Contains(plan, "USE TEMP B-TREE FOR ORDER BY") {
			t.Errorf("%s: is sorted:\n%s", name, plan)
		}
	}
}

func explain(t *testing.T, db *sql.DB, query string, args []any) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(detail + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}
