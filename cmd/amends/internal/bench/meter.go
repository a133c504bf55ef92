package bench

import (
	"context"
	"database/sql"
	"runtime"
	"strconv"
	"time"
)

// serverCounters are a server's own, since it started.
const serverCounters = `SHOW GLOBAL STATUS WHERE Variable_name IN
('Questions', 'Innodb_os_log_fsyncs', 'Innodb_data_fsyncs', 'Innodb_os_log_written')`

// reading is what was used so far.
type reading struct {
	cpu           time.Duration
	allocs, bytes uint64
	server        map[string]float64
}

// meter reads what this process, and the database server, have used.
func (r *rig) meter(ctx context.Context) (reading, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	now := reading{allocs: mem.Mallocs, bytes: mem.TotalAlloc}
	var err error
	if now.cpu, err = cpuTime(); err != nil || r.mysql == nil {
		return now, err
	}
	now.server, err = counters(ctx, r.mysql)
	return now, err
}

func counters(ctx context.Context, db *sql.DB) (map[string]float64, error) {
	rows, err := db.QueryContext(ctx, serverCounters)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]float64{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		if all[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, err
		}
	}
	return all, rows.Err()
}

// until is what was used between two readings, for each of n operations.
func (a reading) until(b reading, n int64) Cost {
	if n == 0 {
		return Cost{}
	}
	each := func(v float64) float64 { return v / float64(n) }
	server := func(name string) float64 { return each(b.server[name] - a.server[name]) }
	fsyncs := "Innodb_os_log_fsyncs"
	if _, apart := b.server[fsyncs]; !apart {
		fsyncs = "Innodb_data_fsyncs" // MariaDB counts those of its log among all
	}
	return Cost{
		CPUMicros: each(float64((b.cpu - a.cpu).Microseconds())),
		Allocs:    each(float64(b.allocs - a.allocs)), AllocBytes: each(float64(b.bytes - a.bytes)),
		Statements: server("Questions"), Fsyncs: server(fsyncs), LogBytes: server("Innodb_os_log_written"),
	}
}
