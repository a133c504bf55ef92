package main_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/sdk"
)

// version is that of a schema: its newest migration.
var version = regexp.MustCompile(`^\d{4}_\w+\n$`)

// TestMigrate runs each migration twice: the first one says what it changed,
// the second one changes nothing.
func TestMigrate(t *testing.T) {
	store, service := filepath.Join(t.TempDir(), "new"), filepath.Join(t.TempDir(), "orders.db")
	if err := os.WriteFile(service, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dsn := servicestest.MySQL(t)
	for _, c := range []struct{ args, where, what string }{
		{"migrate --data-dir " + store, store, "coordinator"},
		{"migrate outbox --sqlite " + service, service, "outbox and inbox"},
		{"migrate", place(t, dsn), "coordinator"}, // both fit into one database
		{"migrate outbox", place(t, dsn), "outbox and inbox"},
	} {
		head, newest := "amends: tables of "+c.what+" in "+c.where+": ", ""
		for _, want := range []string{"from nothing to ", "up to date at "} {
			r := amendsIn(t, environ("AMENDS_MYSQL_DSN="+dsn), strings.Fields(c.args)...)
			said, found := strings.CutPrefix(r.stdout, head+want)
			if r.code != 0 || !found || !version.MatchString(said) || newest != "" && said != newest || r.stderr != "" {
				t.Errorf("amends %s: exit code %d, said %q %q; want %q", c.args, r.code, r.stdout, r.stderr, head+want+newest)
			}
			newest = said
		}
	}
	serve(t, store)
	serveMySQL(t, dsn)
	if r := amends(t, "migrate", "--data-dir", store); r.code != 1 || !strings.Contains(r.stderr, "in use by another process") {
		t.Errorf("beside a coordinator: exit code %d, said %q", r.code, r.stderr)
	}
}

// TestMigrateNeedsARight: who may not change tables is told so, and can run a
// coordinator on tables that are there. The rights are those that
// docs/operations.md names.
func TestMigrateNeedsARight(t *testing.T) {
	dsn := servicestest.MySQL(t)
	admin := openMySQL(t, dsn)
	limited := limitedUser(t, admin, dsn)
	for _, args := range [][]string{{"serve", "--listen", "127.0.0.1:0"}, {"migrate"}} {
		r := amendsIn(t, environ("AMENDS_MYSQL_DSN="+limited), args...)
		if r.code != 1 || !strings.Contains(r.stderr, "the user lacks a privilege: GRANT it") {
			t.Errorf("amends %v: exit code %d, said %q; want 1 and the privilege", args, r.code, r.stderr)
		}
	}
	if n := tables(t, admin, "amends_transactions"); n != 0 {
		t.Errorf("%d tables of the store are there: want none", n)
	}
	migrator := limitedUser(t, admin, dsn, "CREATE", "ALTER", "INDEX")
	for _, args := range [][]string{{"migrate"}, {"migrate", "outbox"}} {
		if r := amendsIn(t, environ("AMENDS_MYSQL_DSN="+migrator), args...); r.code != 0 {
			t.Fatalf("amends %v: %s", args, r.stderr)
		}
	}
	_, addr := serveMySQL(t, limited)
	if _, err := begin(t.Context(), sdk.NewClient(connect(t, addr), nil), "limited", false); err != nil {
		t.Error(err)
	}
}

func tables(t *testing.T, db *sql.DB, name string) (n int) {
	t.Helper()
	const count = `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?`
	if err := db.QueryRowContext(t.Context(), count, name).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMigrateOutboxOfNoFile: a misspelt name makes no database.
func TestMigrateOutboxOfNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "absent.db")
	r := amends(t, "migrate", "outbox", "--sqlite", file)
	if _, err := os.Stat(file); r.code != 1 || !strings.Contains(r.stderr, file) || !os.IsNotExist(err) {
		t.Errorf("exit code %d, said %q, and the file: %v; want 1 and no file", r.code, r.stderr, err)
	}
}

// limitedUser makes a user that may read and write rows, and what else is
// named, and answers with its DSN.
func limitedUser(t *testing.T, admin *sql.DB, dsn string, rights ...string) string {
	t.Helper()
	name := servicestest.Name(t)
	rights = append([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, rights...)
	var database string
	limited := edited(t, dsn, func(c *mysql.Config) { database, c.User, c.Passwd = c.DBName, name, "limited" })
	for _, statement := range []string{
		`CREATE USER ` + name + ` IDENTIFIED BY 'limited'`,
		`GRANT ` + strings.Join(rights, ", ") + ` ON ` + database + `.* TO ` + name,
	} {
		if _, err := admin.ExecContext(t.Context(), statement); err != nil {
			t.Skipf("the user of the shared server may not make users: %v", err)
		}
	}
	t.Cleanup(func() {
		if _, err := admin.ExecContext(context.Background(), `DROP USER `+name); err != nil {
			t.Error(err)
		}
	})
	return limited
}
