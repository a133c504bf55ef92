package main_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/sdk"
)

// edited is the DSN with changes.
func edited(t *testing.T, dsn string, edit func(*mysql.Config)) string {
	t.Helper()
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	edit(conf)
	return conf.FormatDSN()
}

// place is how the program names the database of a DSN.
func place(t *testing.T, dsn string) (words string) {
	t.Helper()
	edited(t, dsn, func(c *mysql.Config) { words = fmt.Sprintf("database %s at %s", c.DBName, c.Addr) })
	return words
}

// serveMySQL starts a coordinator on the database and returns it with its address.
func serveMySQL(t *testing.T, dsn string, args ...string) (*process, string) {
	t.Helper()
	p := startIn(t, environ("AMENDS_MYSQL_DSN="+dsn), append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	ready := p.waitFor(t, `^amends: serving on (127\.0\.0\.1:\d+) \(data in (.+)\)$`)
	if want := place(t, dsn); ready[2] != want {
		t.Errorf("data in %q, want %q", ready[2], want)
	}
	return p, ready[1]
}

// TestServeByURL: the DSN may be a URL, and the flag names it as well.
func TestServeByURL(t *testing.T) {
	dsn := servicestest.MySQL(t)
	var u url.URL
	edited(t, dsn, func(c *mysql.Config) {
		u = url.URL{Scheme: "mysql", User: url.UserPassword(c.User, c.Passwd), Host: c.Addr, Path: "/" + c.DBName}
	})
	p := start(t, "serve", "--mysql", u.String(), "--listen", "127.0.0.1:0", "--max-conns", "4")
	p.waitFor(t, `^amends: serving on .+ \(data in `+place(t, dsn)+`\)$`)
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d; it said:\n%s", code, p.everything())
	}
}

// TestServeOutlivesTheDatabase kills the server under a coordinator, which
// answers that it cannot, and goes on when the server is back.
func TestServeOutlivesTheDatabase(t *testing.T) {
	server := servicestest.StartMySQL(t)
	_, addr := serveMySQL(t, servicestest.NewDatabase(t, server.Addr), "--lease-ttl", "1s", "--log-level", "error")
	conn := connect(t, addr)
	client := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})
	if _, err := begin(t.Context(), client, "before", false); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // the leases end meanwhile
	defer cancel()
	if _, err := begin(ctx, client, "meanwhile", false); !errors.Is(err, sdk.ErrUnknown) {
		t.Errorf("a start without a database: %v, want %v", err, sdk.ErrUnknown)
	}
	server.Start()
	openBank(t, conn)
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, gid := range []string{"before", "meanwhile"} {
		run, err := begin(ctx, client, gid, false) // the same one, if it was started
		if err == nil {
			err = run.Wait(ctx)
		}
		if err != nil {
			t.Errorf("%s: %v", gid, err)
		}
	}
}

// TestTwoOnOneDatabase kills one of two coordinators that share the shards of
// one database: the other one finishes what both had started.
func TestTwoOnOneDatabase(t *testing.T) {
	const lease, runs = 2 * time.Second, 40
	dsn := servicestest.MySQL(t)
	db := openMySQL(t, dsn)
	dying, addr := serveMySQL(t, dsn, "--lease-ttl", lease.String())
	there := sdk.NewClient(connect(t, addr), &sdk.ClientConfig{Logger: quiet()})
	_, addr = serveMySQL(t, dsn, "--lease-ttl", lease.String())
	conn := connect(t, addr)
	here := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})

	share(t, db)
	checkLeases(t, db, lease)
	for n := range runs { // each is for the one or the other, wherever it comes in
		run := func(c *sdk.Client) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := begin(ctx, c, fmt.Sprintf("pay-%d", n), n%4 == 3) // nobody offers its actions yet
			return err
		}
		if err := run([]*sdk.Client{there, here}[n%2]); err != nil {
			t.Fatalf("start %d: %v", n, err)
		}
	}
	var owners int
	if err := db.QueryRowContext(t.Context(), startsOfOwners).Scan(&owners); err != nil || owners != 2 {
		t.Errorf("%d coordinators have starts, want 2; %v", owners, err)
	}
	dying.kill()
	b := openBank(t, conn)
	started := map[string]bool{}
	for n := range runs {
		started[fmt.Sprintf("pay-%d", n)] = n%4 == 3
	}
	checkEnds(t, here, b, started, 1)
	checkNothingOpen(t, conn, runs)
}

// startsOfOwners is how many coordinators own the shards of transactions.
const startsOfOwners = `SELECT COUNT(DISTINCT l.owner) FROM amends_transactions t JOIN amends_leases l ON l.shard = t.shard`

// share waits until two coordinators own all shards.
func share(t *testing.T, db *sql.DB) {
	t.Helper()
	eventually(t, "two coordinators own shards", func() bool {
		var owners, free int
		err := db.QueryRowContext(t.Context(),
			`SELECT COUNT(DISTINCT NULLIF(owner, '')), SUM(owner = '') FROM amends_leases`).Scan(&owners, &free)
		if err != nil {
			t.Fatal(err)
		}
		return owners == 2 && free == 0
	})
}

// checkLeases: none ends later than --lease-ttl says.
func checkLeases(t *testing.T, db *sql.DB, lease time.Duration) {
	t.Helper()
	var micros int64
	if err := db.QueryRowContext(t.Context(), `SELECT MAX(expires_at) -
 TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) FROM amends_leases`).Scan(&micros); err != nil {
		t.Fatal(err)
	}
	if left := time.Duration(micros) * time.Microsecond; left > lease {
		t.Errorf("a lease ends in %v: --lease-ttl is %v", left, lease)
	}
}

// TestNoSuchDatabase: what a server refuses is said with what to do about it,
// and the password is not.
func TestNoSuchDatabase(t *testing.T) {
	good := servicestest.MySQL(t)
	const secret = "hunter2secret"
	var serverAt string
	wrongPassword := edited(t, good, func(c *mysql.Config) { c.Passwd, serverAt = secret, c.Addr })
	wrongUser := edited(t, good, func(c *mysql.Config) { c.User, c.Passwd = "nobody", secret })
	absent := edited(t, good, func(c *mysql.Config) { c.DBName = "amends_test_absent" })
	away := "root:on/ly@pa:rsed$?" + secret + "@tcp(127.0.0.1:1)/amends" // the driver's form takes any password
	for _, c := range []struct{ name, dsn, args, want string }{
		{"wrong password", wrongPassword, "serve", "the server refuses user or password"},
		{"wrong user", wrongUser, "serve", "the server refuses user or password"},
		{"no database", absent, "serve", "the database is not there: CREATE DATABASE"},
		{"no server", away, "serve", "database amends at 127.0.0.1:1"},
		{"too many connections", good, "serve --max-conns 100000", "--max-conns 100000"},
		{"relay, wrong password", wrongPassword, "relay --kafka 127.0.0.1:1", "the server refuses user or password"},
		{"relay, no database", absent, "relay --kafka 127.0.0.1:1", "the database is not there: CREATE DATABASE"},
		{"relay, no server", away, "relay --kafka 127.0.0.1:1", "database amends at 127.0.0.1:1"},
		{"migrate, wrong password", wrongPassword, "migrate", "the server refuses user or password"},
		{"migrate, no database", absent, "migrate", "the database is not there: CREATE DATABASE"},
		{"migrate outbox, no database", absent, "migrate outbox", "the database is not there: CREATE DATABASE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := amendsIn(t, environ("AMENDS_MYSQL_DSN="+c.dsn), strings.Fields(c.args)...)
			if r.code != 1 || !strings.Contains(r.stderr, "amends: AMENDS_MYSQL_DSN") || !strings.Contains(r.stderr, c.want) {
				t.Errorf("exit code %d, said %q; want 1, AMENDS_MYSQL_DSN and %q", r.code, r.stderr, c.want)
			}
			if c.dsn != away && !strings.Contains(r.stderr, serverAt) && !strings.Contains(c.args, "max-conns") {
				t.Errorf("said %q; want the server's address %s", r.stderr, serverAt)
			}
			showsNot(t, r, secret)
		})
	}
}

// TestWrongDSN: whatever cannot be read of a DSN may be its password.
func TestWrongDSN(t *testing.T) {
	const shape = "want user:password@tcp(host:port)/database"
	for _, c := range []struct{ dsn, want string }{
		{"hunter2", shape},
		{"root:hunter2@tcp(db:3306)", shape},
		{"root:hunter2@db/amends", shape},
		{"root:hunter2@tcp(db:3306/amends", shape},
		{"root:hunter2/db", shape},
		{"root:hun/ter2@tcp(db:3306)", shape},
		{"root:@/hunter2@tcp(db:3306)", shape},
		{"root:hunter2@tcp(db:3306)/", "names no database"},
		{"root:hunter2@tcp(db:3306)/amends?timeout=soon", "has wrong parameters"},
		{"root:hunter2@tcp(db:3306)/amends?autocommit=0", "sets autocommit: remove it"},
		{"mysql://root:hunter2@db", "names no database"},
		{"mysql://root:hunter2@db:x/amends", shape},
		{"mysql://root:hun/ter2@db/amends", shape},
		{"mysql://root:12/hunter2@db/amends", shape},
		{"mysql://root:hunter2?x@db/amends", shape},
		{"mysql://root:12?hunter2@db/amends", shape},
		{"mysql://root:12?hunter2@db", "names no database"},
		{"mysql://root:12#hunter2@db/amends", shape},
		{"mysql://root:hunter2%zz@db/amends", shape},
	} {
		for _, env := range []bool{false, true} {
			r, from := result{}, "AMENDS_MYSQL_DSN"
			if env {
				r = amendsIn(t, environ("AMENDS_MYSQL_DSN="+c.dsn), "serve", "--listen", "127.0.0.1:0")
			} else {
				r, from = amends(t, "serve", "--mysql", c.dsn, "--listen", "127.0.0.1:0"), "--mysql"
			}
			if r.code == 0 || !strings.HasPrefix(r.stderr, "amends: "+from) || !strings.Contains(r.stderr, c.want) {
				t.Errorf("%s %s: exit code %d, said %q; want %q", from, c.dsn, r.code, r.stderr, c.want)
			}
			showsNot(t, r, "hun")
			showsNot(t, r, "ter2")
		}
	}
}

func showsNot(t *testing.T, r result, secret string) {
	t.Helper()
	if strings.Contains(r.stdout+r.stderr, secret) {
		t.Errorf("shows the password: %q %q", r.stdout, r.stderr)
	}
}
