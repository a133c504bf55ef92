package sqlstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// TestMySQLRestarts restarts the server under four committers: killed, stopped
// in order, and stopped for a moment. No call fails, nothing is lost or doubled.
func TestMySQLRestarts(t *testing.T) {
	server := servicestest.StartMySQL(t)
	st := openMySQL(t, servicestest.NewDatabase(t, server.Addr))
	ctx, stop := context.WithCancel(t.Context())
	var committers sync.WaitGroup
	steps := 0
	committers.Go(func() { steps = countUp(ctx, t, st) })
	for _, restart := range []func(){
		func() { server.Kill(); server.Start() },
		func() { server.Stop(); server.Start() },
		func() {
			server.Pause()
			<-time.After(time.Second)
			server.Resume()
		},
	} {
		<-time.After(200*time.Millisecond + rand.N(100*time.Millisecond))
		restart()
	}
	<-time.After(200 * time.Millisecond)
	stop()
	committers.Wait()
	verifyCounts(t, st, steps)
}

// TestMySQLSmallServer: packets of a megabyte and ten connections.
func TestMySQLSmallServer(t *testing.T) {
	server := servicestest.StartMySQL(t, "--max-allowed-packet=1M", "--max-connections=10")
	dsn := servicestest.NewDatabase(t, server.Addr)
	if _, err := sqlstore.OpenMySQL(t.Context(), dsn, &sqlstore.Config{MaxConns: 10}); err == nil ||
		!strings.Contains(err.Error(), "MaxConns is 10: the server admits 10") {
		t.Errorf("more connections than the server admits: %v", err)
	}
	st := openMySQL(t, dsn)
	leases, err := st.Acquire(t.Context(), "owner", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(writes ...store.Write) error {
		return st.Commit(t.Context(), store.Batch{Leases: leases, Writes: writes})
	}
	// Bodies that have to be escaped, in all far more than a packet.
	var batch []store.Write
	for i := range 40 {
		w := write(fmt.Sprintf("t%d", i), 1)
		w.Record.Body = []byte(strings.Repeat("'", 1000*i*10))
		w.Events[0].Data = []byte(strings.Repeat("\x00", 1000*(40-i)*10))
		batch = append(batch, w)
	}
	large := write("large", 1) // more than a packet, in parts that are less
	large.Record.Body, large.Record.Definition = make([]byte, 900_000), make([]byte, 900_000)
	if err := commit(append(batch, large)...); err != nil {
		t.Fatal(err)
	}
	for _, w := range append(batch, large) {
		r, err := st.Load(t.Context(), w.Record.GID)
		if err != nil || string(r.Body) != string(w.Record.Body) {
			t.Fatalf("%s: %d bytes of %d: %v", w.Record.GID, len(r.Body), len(w.Record.Body), err)
		}
	}
	huge := write("huge", 1)
	huge.Record.Body = make([]byte, 3<<20)
	if err := commit(huge); err == nil || !strings.Contains(err.Error(), "max_allowed_packet") {
		t.Errorf("a body larger than a packet: %v", err)
	}
	if err := commit(write("after", 1)); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	// More callers than connections wait for their turn.
	many := write("many", 1)
	var callers sync.WaitGroup
	for i := range 50 {
		callers.Go(func() {
			w := many
			w.Record.GID = fmt.Sprintf("many-%d", i)
			w.Events = nil
			if err := commit(w); err != nil {
				t.Errorf("commit: %v", err)
			}
			if _, err := st.Load(t.Context(), w.Record.GID); err != nil {
				t.Errorf("load: %v", err)
			}
		})
	}
	callers.Wait()
}

func TestOpenMySQLRefuses(t *testing.T) {
	dsn := servicestest.MySQL(t)
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(c *mysql.Config)) string {
		c := conf.Clone()
		change(c)
		return c.FormatDSN()
	}
	param := func(name, value string) string {
		return with(func(c *mysql.Config) { c.Params = map[string]string{name: value} })
	}
	closeStore(t, openMySQL(t, dsn))
	newer := servicestest.MySQL(t)
	closeStore(t, openMySQL(t, newer))
	run(t, admin(t, newer), `INSERT INTO amends_store_migrations VALUES (99, 'later', 0)`)
	none := sqlstore.Config{}
	for name, c := range map[string]struct {
		dsn  string
		cfg  sqlstore.Config
		want []string
	}{
		"no dsn":       {"", none, []string{"dsn is empty", "user:password@tcp(host:port)/database"}},
		"not a dsn":    {"somewhere", none, []string{"dsn", "user:password@tcp(host:port)/database"}},
		"no database":  {with(func(c *mysql.Config) { c.DBName = "" }), none, []string{"names no database"}},
		"not there":    {with(func(c *mysql.Config) { c.DBName = "amends_none" }), none, []string{"amends_none", "CREATE"}},
		"password":     {with(func(c *mysql.Config) { c.Passwd = "guess" }), none, []string{"password: see the DSN"}},
		"nobody there": {with(func(c *mysql.Config) { c.Addr = "127.0.0.1:1" }), none, []string{"127.0.0.1:1", "refused"}},
		"isolation":    {param("tx_isolation", "'SERIALIZABLE'"), none, []string{"sets tx_isolation: remove"}},
		"autocommit":   {param("autocommit", "0"), none, []string{"sets autocommit: remove"}},
		"sql_mode":     {param("sql_mode", "''"), none, []string{"sets sql_mode: remove"}},
		"unknown":      {param("no_such_variable", "1"), none, []string{"no_such_variable"}},
		"newer schema": {newer, none, []string{"version 99", "newer amends"}},
		"shards and conns": {dsn, sqlstore.Config{Shards: -1, MaxConns: 1},
			[]string{"Shards is -1", "MaxConns is 1: give 2 or more"}},
	} {
		st, err := sqlstore.OpenMySQL(t.Context(), c.dsn, &c.cfg)
		if err == nil {
			closeStore(t, st)
			t.Errorf("%s: was opened", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v: does not say %q", name, err, want)
			}
		}
		if password := conf.Passwd; strings.Contains(err.Error(), password) && password != "" {
			t.Errorf("%s: tells the password: %v", name, err)
		}
	}
}

// TestMySQLForeignSettings: whatever a DSN says of time and text, the store
// keeps bytes, and times by the server's clock in UTC.
func TestMySQLForeignSettings(t *testing.T) {
	dsn := servicestest.MySQL(t)
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conf.Params = map[string]string{"time_zone": "'+09:00'"}
	conf.ParseTime, conf.MultiStatements = true, true
	if err := conf.Apply(mysql.Charset("latin1", "latin1_swedish_ci")); err != nil {
		t.Fatal(err)
	}
	st := openMySQL(t, conf.FormatDSN())
	leases, err := st.Acquire(t.Context(), "ä\xff ", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	for _, gid := range []string{"ä", "a\xff", "A", "a", "a "} {
		if err := st.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{write(gid, 1)}}); err != nil {
			t.Errorf("%q: %v", gid, err)
		}
		if r, err := st.Load(t.Context(), gid); err != nil || r.GID != gid {
			t.Errorf("%q came back as %q: %v", gid, r.GID, err)
		}
	}
	var owner string
	var expires int64
	row := admin(t, dsn).QueryRow(`SELECT owner, expires_at FROM amends_leases WHERE shard = 0`)
	if err := row.Scan(&owner, &expires); err != nil || owner != "ä\xff " {
		t.Errorf("owner %q: %v", owner, err)
	}
	if off := time.Until(time.UnixMicro(expires)) - time.Hour; off.Abs() > time.Minute {
		t.Errorf("the lease of an hour ends %s late", off)
	}
}

// TestMySQLCreatedTogether: many processes open a new database at once, with
// different ideas of its shards; they agree.
func TestMySQLCreatedTogether(t *testing.T) {
	dsn := servicestest.MySQL(t)
	var all sync.WaitGroup
	shards := make([]int, 6)
	for i := range shards {
		all.Go(func() {
			st, err := sqlstore.OpenMySQL(t.Context(), dsn, config(10*(i+1)))
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if shards[i], err = st.Shards(t.Context()); err != nil {
				t.Error(err)
			}
			closeStore(t, st)
		})
	}
	all.Wait()
	for _, n := range shards {
		if n != shards[0] || n == 0 {
			t.Fatalf("shards: %v", shards)
		}
	}
}
