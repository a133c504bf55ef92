package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	setReadCommitted = `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`
	serverFacts      = `SELECT VERSION(), @@max_allowed_packet, @@max_connections`

	dialTimeout = 5 * time.Second
	// ioTimeout ends the wait for a server that has vanished without a word.
	ioTimeout = 30 * time.Second
	// idleTime is how long a connection is kept that nobody uses. It is less
	// than the time after which we ask the server to end it.
	idleTime = 15 * time.Second
)

// mysqlSession are the variables of our connections that a DSN may set
// otherwise.
var mysqlSession = map[string]string{
	// A lock is held for milliseconds, or by a connection that is dead.
	"innodb_lock_wait_timeout": "5",
	// A machine that vanishes in the middle of a transaction leaves its locks
	// behind. They end with its connection, and that ends when it is idle.
	"wait_timeout": "30",
}

// mysqlFixed are the variables that the store's promises rest on.
var mysqlFixed = map[string]string{
	"autocommit": "1",
	"sql_mode":   "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'", // what does not fit is refused, not cut
}

// mysqlTheirs are parameters of a DSN that the store cannot work with.
var mysqlTheirs = []string{"transaction_isolation", "tx_isolation", "transaction_read_only", "tx_read_only",
	"character_set_client", "character_set_connection", "character_set_results", "collation_connection"}

// OpenMySQL opens the store in a database of a MySQL server (8.0 or newer),
// MariaDB (10.6 or newer), or what speaks their protocol and SQL, such as
// TiDB, on which it should run and has not been tested. The database must be there; the tables are created, or brought up to
// date, when it is opened.
//
// dsn is the go-sql-driver's, "user:password@tcp(host:port)/database", with
// TLS and timeouts as its parameters say, or the same as a URL,
// "mysql://user:password@host:port/database". What the store needs of a connection
// it sets itself, so charset, parseTime, loc and the like have no effect; a
// DSN that sets a variable otherwise than the store needs it is refused.
//
// Any number of coordinators may share the database. Their leases end by the
// server's clock. A deadlock, a lost connection or a restart of the server is
// met by repeating the call, for up to ten seconds; each call finds out whether
// its earlier run took effect.
func OpenMySQL(ctx context.Context, dsn string, cfg *Config) (store.Store, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	conf, err := mysqlConfig(dsn)
	if err != nil {
		return nil, err
	}
	server, err := askServer(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: %s: %w", where(conf), explainMySQL(err))
	}
	conns, err := server.conns(c.MaxConns)
	if err != nil {
		return nil, err
	}
	conf.MaxAllowedPacket = server.maxPacket - 1
	d, err := mysqlDialect(server.maxPacket)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: %w", err)
	}
	d.atOnce = server.locks()
	writer, err := mysqlPool(conf, conns-conns/2)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: dsn: %w", err)
	}
	reader, err := mysqlPool(conf, conns/2)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlstore: dsn: %w", err), writer.Close())
	}
	schema, err := mysqlPool(forSchema(conf), 1)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlstore: dsn: %w", err), reader.Close(), writer.Close())
	}
	s, err := open(ctx, d, writer, reader, schema, &c)
	if err := errors.Join(err, schema.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (%s)", err, where(conf)), reader.Close(), writer.Close())
	}
	return s, nil
}

// forSchema is for connections that wait for as long as the server takes to
// change a large table. They notice a server that has vanished by TCP's
// keep-alive.
func forSchema(conf *mysql.Config) *mysql.Config {
	conf = conf.Clone()
	conf.ReadTimeout = 0
	return conf
}

// where names the database to people, without the password.
func where(conf *mysql.Config) string {
	return fmt.Sprintf("database %s at %s", conf.DBName, conf.Addr)
}

// mysqlConfig reads a DSN and adds what the store needs.
func mysqlConfig(dsn string) (*mysql.Config, error) {
	if dsn == "" {
		return nil, errors.New("sqlstore: dsn is empty: give user:password@tcp(host:port)/database")
	}
	conf, err := ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(conf.Params)) {
		_, fixed := mysqlFixed[name]
		if fixed || slices.Contains(mysqlTheirs, name) {
			errs = append(errs, fmt.Errorf("sqlstore: dsn sets %s: remove it, the store sets what it needs", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	params := maps.Clone(mysqlSession)
	maps.Copy(params, conf.Params)
	maps.Copy(params, mysqlFixed)
	conf.Params = params
	conf.Timeout = cmp.Or(conf.Timeout, dialTimeout)
	conf.ReadTimeout, conf.WriteTimeout = cmp.Or(conf.ReadTimeout, ioTimeout), cmp.Or(conf.WriteTimeout, ioTimeout)
	// One statement takes one round trip. A server that has become a replica
	// costs a connection, not a failure.
	conf.InterpolateParams, conf.RejectReadOnly, conf.MultiStatements = true, true, false
	conf.AllowAllFiles, conf.Logger = false, &mysql.NopLogger{} // all that it says is in the errors
	// Strings are bytes, on the way in and out.
	return conf, conf.Apply(mysql.Charset("binary", ""))
}

// session makes connections that read what is committed.
type session struct{ driver.Connector }

// Connect implements driver.Connector.
func (s session) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	exec, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T executes nothing", conn), conn.Close())
	}
	if _, err := exec.ExecContext(ctx, setReadCommitted, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func mysqlPool(conf *mysql.Config, n int) (*sql.DB, error) {
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(session{connector})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(idleTime)
	return db, nil
}

// mysqlServer is what we need to know of a server.
type mysqlServer struct {
	version   string
	maxPacket int // bytes
	maxConns  int // 0: no bound
}

func askServer(ctx context.Context, conf *mysql.Config) (srv mysqlServer, err error) {
	db, err := mysqlPool(conf, 1)
	if err != nil {
		return srv, err
	}
	err = db.QueryRowContext(ctx, serverFacts).Scan(&srv.version, &srv.maxPacket, &srv.maxConns)
	if err := errors.Join(err, db.Close()); err != nil {
		return srv, err
	}
	return srv, checkVersion(srv.version)
}

// checkVersion refuses servers that lack what the statements need.
func checkVersion(version string) error {
	need, name, number := [2]int{8, 0}, "MySQL", version
	switch {
	case strings.Contains(version, "TiDB"):
		return nil // tells a MySQL version that it resembles
	case strings.Contains(version, "MariaDB"):
		need, name, number = [2]int{10, 6}, "MariaDB", strings.TrimPrefix(version, "5.5.5-")
	}
	var has [2]int
	for i, part := range strings.SplitN(number, ".", 3)[:min(2, strings.Count(number, ".")+1)] {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil // speaks the protocol under a name of its own
		}
		has[i] = n
	}
	if slices.Compare(has[:], need[:]) < 0 {
		return fmt.Errorf("the server is %s %s: the store needs %d.%d or newer", name, version, need[0], need[1])
	}
	return nil
}

// locks reports whether a statement of its own keeps the locks that it asks for
// until it is durable. TiDB's do not, and of others that speak the protocol
// nobody knows.
func (srv mysqlServer) locks() bool {
	number, _, _ := strings.Cut(srv.version, ".")
	_, err := strconv.Atoi(number)
	return err == nil && !strings.Contains(srv.version, "TiDB") && !strings.Contains(srv.version, "Vitess")
}

// conns is how many connections we use: below the server's own limit, which
// others use too.
func (srv mysqlServer) conns(want int) (int, error) {
	switch {
	case srv.maxConns == 0:
		return cmp.Or(want, DefaultMaxConns), nil
	case want >= srv.maxConns:
		return 0, fmt.Errorf("sqlstore: MaxConns is %d: the server admits %d in all (max_connections): give less",
			want, srv.maxConns)
	}
	return cmp.Or(want, min(DefaultMaxConns, max(srv.maxConns/4, 2))), nil
}
