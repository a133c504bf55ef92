package world

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
	"github.com/amends-dev/amends/cmd/torture/internal/process"
	"github.com/amends-dev/amends/cmd/torture/internal/proxy"
	"github.com/amends-dev/amends/cmd/torture/internal/skew"
	"github.com/amends-dev/amends/deploy/services"
)

// Member is a process of the world's.
type Member struct {
	*process.Process

	Role  string
	DB    *proxy.Proxy // between it and the database server
	Front *proxy.Proxy // before a coordinator; otherwise nil
	Clock *skew.Clock  // nil: it goes right
}

func (w *World) ownsMySQL() bool { return w.Own[services.MySQL] != nil }
func (w *World) ownsKafka() bool { return w.Own[services.Kafka] != nil }

// Role returns the processes of a role.
func (w *World) Role(role string) []*Member {
	var found []*Member
	for _, m := range w.Members {
		if m.Role == role {
			found = append(found, m)
		}
	}
	return found
}

// Addresses are those of the coordinators, each behind its proxy.
func (w *World) Addresses() []string {
	var addrs []string
	for _, m := range w.Role(Coordinator) {
		addrs = append(addrs, m.Front.Addr())
	}
	return addrs
}

// makeMembers prepares proxies and processes.
func (w *World) makeMembers() error {
	var held []net.Listener // ports of coordinators, until no proxy can take them any more
	defer func() {
		for _, lis := range held {
			_ = lis.Close() // nobody ever connected
		}
	}()
	for i := range w.Config.Coordinators {
		lis, err := reserve()
		if err != nil {
			return err
		}
		held = append(held, lis)
		if err := w.addCoordinator(i+1, lis.Addr().String()); err != nil {
			return err
		}
	}
	for i := range w.Relays {
		if err := w.addRelay(i + 1); err != nil {
			return err
		}
	}
	for _, of := range []struct {
		role string
		n    int
	}{{Worker, w.Workers}, {Reader, w.Readers}} {
		for i := range of.n {
			if err := w.addOwn(of.role, i+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserve takes a port below the ephemeral range.
func reserve() (net.Listener, error) {
	port, err := services.FreePort()
	if err != nil {
		return nil, err
	}
	return (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

func (w *World) addCoordinator(i int, listen string) error {
	front, err := proxy.Listen(listen)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("c%d", i)
	args := []string{"serve", "--listen", listen, "--advertise", front.Addr(), "--name", name,
		"--lease-ttl", w.Lease.String(), "--log-level", "info"}
	if w.MaxLive > 0 {
		args = append(args, "--max-live", fmt.Sprint(w.MaxLive))
	}
	m, dsn, err := w.behind(Coordinator, Coordinators)
	if err != nil {
		return err
	}
	m.Front = front
	path := w.Amends
	if i == 1 {
		path = cmp.Or(w.Other, path)
	}
	return w.add(m, process.Config{
		Name: name, Path: path, Args: args, Env: []string{services.MySQL.Env() + "=" + dsn},
		Ready: regexp.MustCompile(`^amends: serving on `),
	})
}

// add completes a member, and has its clock be off if clocks are to be.
func (w *World) add(m *Member, c process.Config) (err error) {
	c.Log = filepath.Join(w.Dir, c.Name+".log")
	if w.Skew > 0 && c.Path != w.Other {
		off := []time.Duration{-w.Skew, w.Skew, 0}[len(w.Role(m.Role))%3]
		if m.Clock, err = skew.NewClock(filepath.Join(w.Dir, c.Name+".clock"), off); err != nil {
			return err
		}
		c.Env = append(c.Env, m.Clock.Env())
	}
	m.Process = process.New(c)
	w.Members = append(w.Members, m)
	return nil
}

func (w *World) addRelay(i int) error {
	name := fmt.Sprintf("relay%d", i)
	m, dsn, err := w.behind(Relay, bank.Notes)
	if err != nil {
		return err
	}
	addrs := w.Addresses()
	return w.add(m, process.Config{
		Name: name, Path: w.Amends, Env: []string{services.MySQL.Env() + "=" + dsn},
		Args: []string{
			"relay", "--kafka", strings.Join(w.Kafka, ","), "--coordinator", addrs[(i-1)%len(addrs)], "--redis", w.Redis,
			"--redis-prefix", w.Topic + "-relay:", "--lease", w.Lease.String(), "--log-level", "info",
		},
		Ready: regexp.MustCompile(`^amends: relaying`),
	})
}

// addOwn adds a process of the bank's.
func (w *World) addOwn(role string, i int) error {
	name := fmt.Sprintf("%s%d", role, i)
	m := &Member{Role: role}
	var err error
	if m.DB, err = w.proxyMySQL(); err != nil {
		return err
	}
	c := bank.Config{
		Name: name, Coordinators: w.Addresses(), Kafka: w.Kafka, Redis: w.Redis, Topic: w.Topic, Group: w.Group,
		Databases: map[string]string{},
	}
	for database, dsn := range w.dsn {
		if c.Databases[database], err = through(m.DB, dsn); err != nil {
			return err
		}
	}
	file := filepath.Join(w.Dir, name+".json")
	if err := c.Save(file); err != nil {
		return err
	}
	return w.add(m, process.Config{
		Name: name, Path: w.Self, Args: []string{role, file},
		Ready: regexp.MustCompile("^" + regexp.QuoteMeta(bank.Ready)),
	})
}

// behind makes a member that meets a database through a proxy of its own.
func (w *World) behind(role, database string) (*Member, string, error) {
	p, err := w.proxyMySQL()
	if err != nil {
		return nil, "", err
	}
	dsn, err := through(p, w.dsn[database])
	return &Member{Role: role, DB: p}, dsn, err
}

func (w *World) proxyMySQL() (*proxy.Proxy, error) {
	conf, err := mysql.ParseDSN(w.dsn[Coordinators])
	if err != nil {
		return nil, err
	}
	return proxy.Listen(conf.Addr)
}

// through is a DSN whose server is met through a proxy.
func through(p *proxy.Proxy, dsn string) (string, error) {
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		return "", err
	}
	conf.Net, conf.Addr = "tcp", p.Addr()
	return conf.FormatDSN(), nil
}

// Exits tells of processes that ended though nobody asked.
func (w *World) Exits() []string {
	var all []string
	for _, m := range w.Members {
		all = append(all, m.Exits()...)
	}
	return all
}

// Shards are those that a coordinator owns by the database's word, whichever of
// its processes it was.
func Shards(ctx context.Context, db *sql.DB, name string) (shards []int, err error) {
	const query = `SELECT shard FROM amends_leases WHERE owner LIKE ?
AND expires_at > CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)`
	rows, err := db.QueryContext(ctx, query, name+"-%")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s int
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		shards = append(shards, s)
	}
	return shards, rows.Err()
}
