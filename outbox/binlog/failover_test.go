package binlog_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox/binlog"
)

// TestFailover kills a primary under load, promotes its replica, and leads the
// writers and the relay there. What was committed had reached the replica: the
// primary waited for it (semi-synchronous replication, AFTER_SYNC).
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]binlog.Mode{"Table": binlog.ModeTable, "Log": binlog.ModeLog} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testFailover(t, mode)
		})
	}
}

func testFailover(t *testing.T, mode binlog.Mode) {
	p := newPair(t)
	h := newHarnessAt(t, p.dsn, mode)
	r := h.relay(h.log)
	h.following(r)
	stop := h.load(2 * time.Millisecond)
	some := func() {
		h.Helper()
		n := h.log.Len()
		h.until("more messages", func() bool { return h.log.Len() > n+200 })
	}
	some()
	p.failOver()
	some()
	h.until("the new primary's log to be read", func() bool { return r.src.Stats().Reading })
	some()
	stop()
	again, total := h.result(h.log.Messages)
	t.Logf("%d messages, %d of them again", total, again)
	h.empty()
}

// pair is a primary, its replica, and an address that leads to one of them.
type pair struct {
	*harness         // of the replica's own account
	primary, replica *servicestest.Server
	link             *link
	dsn              string // of an empty database behind the link
}

func newPair(t *testing.T) *pair {
	p := &pair{primary: startServer(t, "--rpl-semi-sync-master-timeout=60000"), replica: startServer(t, "--server-id=2", "--log-slave-updates")}
	first := &harness{TB: t, db: open(t, p.primary.Addr)}
	p.harness = &harness{TB: t, db: open(t, p.replica.Addr)}
	account, err := mysql.ParseDSN(p.primary.Addr)
	first.must(err)
	host, port, err := net.SplitHostPort(account.Addr)
	first.must(err)

	first.exec(`RESET MASTER`)
	p.exec(`RESET MASTER`)
	first.exec(`SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'`)
	first.exec(`SET GLOBAL rpl_semi_sync_master_enabled = ON`)
	p.exec(`SET GLOBAL rpl_semi_sync_slave_enabled = ON`)
	p.exec(fmt.Sprintf(`CHANGE MASTER TO MASTER_HOST = '%s', MASTER_PORT = %s, MASTER_USER = '%s', MASTER_PASSWORD = '%s',
 MASTER_USE_GTID = slave_pos`, host, port, account.User, account.Passwd))
	p.exec(`START SLAVE`)
	first.exec(`CREATE USER app@'127.0.0.1' IDENTIFIED BY 'app'`)
	first.exec(`GRANT ALL PRIVILEGES ON *.* TO app@'127.0.0.1'`)
	first.exec(`CREATE DATABASE orders`)

	p.link = newLink(t, account.Addr)
	account.User, account.Passwd, account.Addr, account.DBName = "app", "app", p.link.Addr().String(), "orders"
	p.dsn = account.FormatDSN()
	return p
}

// failOver kills the primary, and makes the replica one when it has done all that
// it was told.
func (p *pair) failOver() {
	p.Helper()
	p.primary.Kill()
	p.until("the replica to have done all", func() bool {
		s := p.status()
		return s["Slave_IO_Running"] != "Yes" && s["Gtid_IO_Pos"] == p.position()
	})
	p.exec(`STOP SLAVE`)
	p.exec(`RESET SLAVE ALL`)
	to, err := mysql.ParseDSN(p.replica.Addr)
	p.must(err)
	p.link.lead(to.Addr)
}

func (p *pair) position() (gtid string) {
	p.Helper()
	p.must(p.db.QueryRow(`SELECT @@gtid_slave_pos`).Scan(&gtid))
	return gtid
}

// status is what SHOW SLAVE STATUS says.
func (p *pair) status() map[string]string {
	p.Helper()
	rows, err := p.db.Query(`SHOW SLAVE STATUS`)
	p.must(err)
	defer rows.Close()
	names, err := rows.Columns()
	p.must(err)
	values, dest := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		dest[i] = &values[i]
	}
	if !rows.Next() {
		p.Fatalf("it is no replica: %v", rows.Err())
	}
	p.must(rows.Scan(dest...))
	p.must(rows.Err())
	status := map[string]string{}
	for i, name := range names {
		status[name] = values[i].String
	}
	return status
}

// link is an address that leads to another one.
type link struct {
	net.Listener
	mu    sync.Mutex
	to    string
	conns map[net.Conn]bool
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{Listener: lis, to: to, conns: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return // closed
			}
			serving.Go(func() { l.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = lis.Close()
		l.lead("")
		serving.Wait()
	})
	return l
}

// lead has the address lead elsewhere, and ends what goes on.
func (l *link) lead(to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// carry carries bytes both ways until one side ends.
func (l *link) carry(conn net.Conn) {
	defer conn.Close()
	l.mu.Lock()
	to := l.to
	l.conns[conn] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, conn)
	}()
	other, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return // whoever asked finds the connection closed
	}
	defer other.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(conn, other) // an error ends it like an end
		_ = conn.Close()
	})
	_, _ = io.Copy(other, conn)
	_ = other.Close()
	back.Wait()
}
