package binlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/amends-dev/amends/outbox"
)

const dialTimeout = 10 * time.Second

const (
	askVersion   = `SELECT VERSION()`
	askIdentity  = `SELECT value FROM amends_outbox_identity`
	askVariables = `SHOW GLOBAL VARIABLES WHERE variable_name IN
('log_bin', 'binlog_format', 'binlog_row_image', 'sync_binlog', 'binlog_order_commits', 'gtid_mode',
'binlog_expire_logs_seconds', 'expire_logs_days')`
	askColumns = `SELECT table_name, column_name, COALESCE(engine, '') FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = DATABASE() AND table_name LIKE 'amends|_outbox|__' ESCAPE '|' ORDER BY table_name, ordinal_position`
	askEnd      = `SHOW MASTER STATUS`
	askEnd84    = `SHOW BINARY LOG STATUS` // MySQL 8.4
	askFiles    = `SHOW BINARY LOGS`
	askGTID     = `SELECT @@GLOBAL.gtid_binlog_pos`
	askGTIDOf   = `SELECT BINLOG_GTID_POS(?, 4)`
	askPurged   = `SELECT @@GLOBAL.gtid_purged`
	askTime     = `SELECT UNIX_TIMESTAMP()`
	tablePrefix = "amends_outbox_"
)

// server is a connection for questions. It is used by one goroutine at a time.
type server struct {
	cfg     *Config
	conn    *client.Conn
	flavor  string
	vars    map[string]string
	columns [outbox.Partitions][]int // where each of outbox.SourceColumns is in a row; -1: nowhere
	engines [outbox.Partitions]string
	// anyEngine: the tables are about to be converted
	anyEngine bool
}

func connect(ctx context.Context, cfg *Config) (*server, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := &net.Dialer{}
	conn, err := client.ConnectWithDialer(ctx, "", cfg.Addr, cfg.User, cfg.Password, cfg.Database, dialer.DialContext,
		func(c *client.Conn) error {
			c.SetTLSConfig(cfg.TLS)
			c.ReadTimeout, c.WriteTimeout = dialTimeout, dialTimeout
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("binlog: connect to %s: %w", cfg.Addr, err)
	}
	return &server{cfg: cfg, conn: conn}, nil
}

func (s *server) close() {
	_ = s.conn.Close() // nothing is under way
}

// table is an answer as text.
func (s *server) table(query string, args ...any) ([][]string, error) {
	res, err := s.conn.Execute(query, args...)
	if err != nil {
		return nil, fmt.Errorf("binlog: %s: %w", strings.ReplaceAll(query, "\n", " "), err)
	}
	defer res.Close()
	out := make([][]string, res.RowNumber())
	for i := range out {
		for j := range res.ColumnNumber() {
			text, err := res.GetString(i, j)
			if err != nil {
				return nil, fmt.Errorf("binlog: %s: %w", query, err)
			}
			out[i] = append(out[i], strings.Clone(text)) // the answer's memory is used again
		}
	}
	return out, nil
}

// one is a single value.
func (s *server) one(query string, args ...any) (string, error) {
	rows, err := s.table(query, args...)
	if err != nil {
		return "", err
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return "", fmt.Errorf("binlog: %s: no answer", query)
	}
	return rows[0][0], nil
}

// check finds out whether the server can be read from; every mistake in its
// configuration is in one outbox.ErrConfig.
func (s *server) check(ctx context.Context, identity string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	version, err := s.one(askVersion)
	if err != nil {
		return err
	}
	s.flavor = flavorOf(version)
	if err := s.readVariables(); err != nil {
		return err
	}
	if err := s.readColumns(); err != nil {
		return err
	}
	errs := append(s.mistakes(), s.privileges()...)
	ids, err := s.table(askIdentity)
	if err != nil {
		return err
	}
	if len(ids) != 1 || ids[0][0] != identity {
		errs = append(errs, fmt.Errorf("fields Addr and Database lead to another database than the relay's: "+
			"its identity is %q, the relay's %q", ids, identity))
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: binlog: %w", outbox.ErrConfig, errors.Join(errs...))
	}
	return nil
}

func flavorOf(version string) string {
	if strings.Contains(strings.ToLower(version), "mariadb") {
		return mysql.MariaDBFlavor
	}
	return mysql.MySQLFlavor
}

func (s *server) readVariables() error {
	rows, err := s.table(askVariables)
	if err != nil {
		return err
	}
	s.vars = map[string]string{}
	for _, r := range rows {
		s.vars[strings.ToLower(r[0])] = strings.ToUpper(r[1])
	}
	return nil
}

// mistakes are the server's settings that make the log unfit.
func (s *server) mistakes() []error {
	var errs []error
	want := func(name, value, why string) {
		if got, there := s.vars[name]; there && got != value {
			errs = append(errs, fmt.Errorf("the server's variable %s is %s: set it to %s: %s", name, got, value, why))
		}
	}
	want("log_bin", "ON", "there is no log to read (it is set in the server's configuration file, and by a restart)")
	want("binlog_format", "ROW", "otherwise the values of rows are not in the log")
	want("binlog_row_image", "FULL", "otherwise columns are missing from the log")
	// The order in which commits become visible has to be that of the log.
	want("binlog_order_commits", "ON", "otherwise messages of a key could change places")
	if s.cfg.Mode == ModeLog {
		want("sync_binlog", "1", "otherwise a power failure loses messages that were committed")
	}
	for p, engine := range s.engines {
		if none := engine == "BLACKHOLE"; engine != "" && none != (s.cfg.Mode == ModeLog) && !s.anyEngine {
			errs = append(errs, fmt.Errorf("table %s%d has ENGINE=%s, which field Mode does not suit: "+
				"ModeLog needs BLACKHOLE, ModeTable a table that keeps rows", tablePrefix, p, engine))
		}
	}
	return errs
}

// privileges finds out whether the server tells where its log is, and whether it
// logs the database.
func (s *server) privileges() []error {
	row, err := s.status()
	if err == nil {
		_, err = s.table(askFiles)
	}
	if err != nil {
		return []error{fmt.Errorf("%w: GRANT %s ON *.* TO the user %s", err, s.monitor(), s.cfg.User)}
	}
	var errs []error
	if len(row) > 3 {
		if only := row[2]; only != "" && !listed(only, s.cfg.Database) {
			errs = append(errs, fmt.Errorf("the server's binlog_do_db is %s: add %s", only, s.cfg.Database))
		}
		if not := row[3]; listed(not, s.cfg.Database) {
			errs = append(errs, fmt.Errorf("the server's binlog_ignore_db is %s: take %s out", not, s.cfg.Database))
		}
	}
	return errs
}

func (s *server) monitor() string {
	if s.flavor == mysql.MariaDBFlavor {
		return "BINLOG MONITOR"
	}
	return "REPLICATION CLIENT"
}

func listed(list, name string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(item) == name {
			return true
		}
	}
	return false
}
