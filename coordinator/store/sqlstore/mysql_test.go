package sqlstore_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
)

func openMySQL(t testing.TB, dsn string) store.Store {
	t.Helper()
	st, err := sqlstore.OpenMySQL(context.Background(), dsn, config(storetest.Shards))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, st) })
	return st
}

// mysqlBackend crashes by forgetting the store, whose connections stay open,
// as the server finds a process that has not been missed yet.
func mysqlBackend(t *testing.T) storetest.Backend {
	dsn := servicestest.MySQL(t)
	return storetest.Backend{Open: func() store.Store { return openMySQL(t, dsn) }, Crash: func() {}}
}

func TestMySQL(t *testing.T) {
	storetest.Run(t, mysqlBackend)
}

func BenchmarkMySQLCommit(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) store.Store { return openMySQL(b, servicestest.MySQL(b)) })
}

// admin opens a plain pool on the same database.
func admin(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conf.InterpolateParams = true
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
