package binlog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// status is the row that says where the log ends.
func (s *server) status() ([]string, error) {
	rows, err := s.table(askEnd)
	var my *mysql.MyError
	if errors.As(err, &my) && my.Code == mysql.ER_PARSE_ERROR {
		rows, err = s.table(askEnd84)
	}
	if err == nil && (len(rows) == 0 || len(rows[0]) < 2) {
		err = errors.New("binlog: the server has no log")
	}
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// end is where the log ends.
func (s *server) end() (position, error) {
	p := position{flavor: s.flavor, when: time.Now()}
	gtid := ""
	var err error
	if s.flavor == mysql.MariaDBFlavor {
		if gtid, err = s.one(askGTID); err != nil { // before the file: what follows it is not missed
			return position{}, err
		}
	}
	row, err := s.status()
	if err != nil {
		return position{}, err
	}
	pos, err := strconv.ParseUint(row[1], 10, 32)
	if err != nil {
		return position{}, fmt.Errorf("binlog: the end of the log: %w", err)
	}
	p.at = mysql.Position{Name: row[0], Pos: uint32(pos)}
	if s.flavor != mysql.MariaDBFlavor {
		if s.vars["gtid_mode"] != "ON" || len(row) < 5 {
			return p, nil
		}
		gtid = strings.ReplaceAll(row[4], "\n", "")
	}
	p.gtid, err = mysql.ParseGTIDSet(s.flavor, gtid)
	return p, err
}

// oldest is where what is left of the log begins, and the files that are left.
func (s *server) oldest() (position, []string, error) {
	rows, err := s.table(askFiles)
	if err != nil {
		return position{}, nil, err
	}
	if len(rows) == 0 {
		return position{}, nil, errors.New("binlog: the server has no log")
	}
	files := make([]string, len(rows))
	for i := range rows {
		files[i] = rows[i][0]
	}
	p := position{flavor: s.flavor, at: mysql.Position{Name: files[0], Pos: 4}}
	gtid := ""
	switch {
	case s.flavor == mysql.MariaDBFlavor:
		gtid, err = s.one(askGTIDOf, files[0])
	case s.vars["gtid_mode"] == "ON":
		gtid, err = s.one(askPurged)
	default:
		return p, files, nil
	}
	if err == nil {
		p.gtid, err = mysql.ParseGTIDSet(s.flavor, strings.ReplaceAll(gtid, "\n", ""))
	}
	return p, files, err
}

// expiry is how long the server keeps its log; 0: for ever.
func (s *server) expiry() time.Duration {
	if n, err := strconv.ParseFloat(s.vars["binlog_expire_logs_seconds"], 64); err == nil && n > 0 {
		return time.Duration(n * float64(time.Second))
	}
	if n, err := strconv.ParseFloat(s.vars["expire_logs_days"], 64); err == nil && n > 0 {
		return time.Duration(n * 24 * float64(time.Hour))
	}
	return 0
}

// clock is the server's time.
func (s *server) clock() (time.Time, error) {
	text, err := s.one(askTime)
	if err != nil {
		return time.Time{}, err
	}
	n, err := strconv.ParseFloat(text, 64)
	return time.Unix(int64(n), 0), err
}
