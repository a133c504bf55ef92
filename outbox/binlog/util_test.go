package binlog_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
)

func openDB(dsn string) (*sql.DB, error) { return sql.Open("mysql", dsn) }

func (l *lines) handler() slog.Handler { return slog.NewTextHandler(l, nil) }

func chance(share float64) bool { return rand.Float64() < share }

// cut ends the connections that read the log.
func (h *harness) cut() {
	h.Helper()
	const reading = `SELECT id FROM information_schema.processlist WHERE command = 'Binlog Dump'`
	rows, err := h.db.QueryContext(context.Background(), reading)
	h.must(err)
	var ids []int64
	for rows.Next() {
		var id int64
		h.must(rows.Scan(&id))
		ids = append(ids, id)
	}
	h.must(rows.Err())
	h.must(rows.Close())
	for _, id := range ids {
		_, _ = h.db.ExecContext(context.Background(), fmt.Sprintf(`KILL %d`, id)) // it may have ended by itself
	}
}
