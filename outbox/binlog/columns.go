package binlog

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/amends-dev/amends/outbox"
)

var numbered = regexp.MustCompile(`^amends_outbox_([0-9]+)$`)

// partitionOf is the number in a table's name.
func partitionOf(table string) (int, bool) {
	m := numbered.FindStringSubmatch(table)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil && n < outbox.Partitions
}

// readColumns finds where the columns of a row are: the log has no names.
func (s *server) readColumns() error {
	rows, err := s.table(askColumns)
	if err != nil {
		return err
	}
	wanted := outbox.SourceColumns()
	at := [outbox.Partitions]map[string]int{}
	for _, r := range rows {
		p, ok := partitionOf(r[0])
		if !ok {
			continue
		}
		if at[p] == nil {
			at[p] = map[string]int{}
		}
		at[p][r[1]] = len(at[p])
		s.engines[p] = strings.ToUpper(r[2])
	}
	for p := range at {
		if at[p] == nil {
			return fmt.Errorf("binlog: table %s%d is not there, or the user %s has no SELECT on it (was outbox.Migrate run?)",
				tablePrefix, p, s.cfg.User)
		}
		s.columns[p] = nil
		for _, name := range wanted {
			i, ok := at[p][name]
			if !ok {
				i = -1
			}
			s.columns[p] = append(s.columns[p], i)
		}
	}
	return nil
}

// partition tells whether a table is one of the outbox's, and which.
func (s *server) partition(t *replication.TableMapEvent) (int, bool) {
	if string(t.Schema) != s.cfg.Database || !strings.HasPrefix(string(t.Table), tablePrefix) {
		return 0, false
	}
	return partitionOf(string(t.Table))
}

// row puts the values of a row into the order of outbox.SourceColumns. Columns
// are only ever added behind the others, so a row that is older than a column
// just lacks it.
func (s *server) row(part int, values []any) (outbox.SourceRow, error) {
	row := outbox.SourceRow{Values: make([]any, len(s.columns[part]))}
	for i, at := range s.columns[part] {
		if at < 0 || at >= len(values) {
			continue
		}
		switch v := values[at].(type) {
		case nil, int64, string, []byte:
			row.Values[i] = v
		case int32:
			row.Values[i] = int64(v)
		default:
			return row, fmt.Errorf("binlog: column %d of %s%d is a %T", at, tablePrefix, part, v)
		}
	}
	return row, nil
}
