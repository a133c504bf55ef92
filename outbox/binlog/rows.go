package binlog

import (
	"fmt"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/amends-dev/amends/outbox"
)

// rows collects what was written to a partition.
func (r *reader) rows(t replication.EventType, e *replication.RowsEvent) error {
	n, ours := r.table(e.Table)
	if !ours {
		return nil
	}
	part := &r.parts[n]
	switch {
	case isDelete(t): // by a relay, or by an operator
		return nil
	case !isInsert(t):
		part.err = errRows
		return nil
	case r.xa && r.s.cfg.Mode == ModeTable:
		return nil // they appear with XA COMMIT: see query
	}
	for i, values := range e.Rows {
		if len(e.SkippedColumns) > i && len(e.SkippedColumns[i]) > 0 {
			return fmt.Errorf("%w: binlog: a row of %s lacks columns: a session has set binlog_row_image: let it be FULL",
				outbox.ErrConfig, e.Table.Table)
		}
		row, err := r.row(n, values)
		if err != nil {
			return err
		}
		if r.xa {
			row.Err = errXA
		}
		part.rows = append(part.rows, row)
		part.bytes += weight(row.Values)
		if len(part.rows) >= r.s.cfg.MaxRows || part.bytes >= r.s.cfg.MaxBytes {
			r.pass(n, "", false) // in the log it is only because it was committed
		}
	}
	return nil
}

func isInsert(t replication.EventType) bool {
	switch t {
	case replication.WRITE_ROWS_EVENTv0, replication.WRITE_ROWS_EVENTv1, replication.WRITE_ROWS_EVENTv2,
		replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1:
		return true
	}
	return false
}

func isDelete(t replication.EventType) bool {
	switch t {
	case replication.DELETE_ROWS_EVENTv0, replication.DELETE_ROWS_EVENTv1, replication.DELETE_ROWS_EVENTv2,
		replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		return true
	}
	return false
}

func weight(values []any) int {
	n := 0
	for _, v := range values {
		switch v := v.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		}
		n += 16
	}
	return n
}
