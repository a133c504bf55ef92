// Package bench measures what Amends does on the machine at hand: sagas and TCC
// transactions to their end, an outbox from the business transaction to the
// consumer, and in the same run the limits that the machine sets to them.
//
// Coordinator, participants and clients are in this process and talk over
// loopback TCP. What is counted is what completed; what was refused or failed
// is counted apart. In an open loop latency counts from when a request should
// have left, not from when it did (Gil Tene's "coordinated omission").
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Config says what is measured, and how.
type Config struct {
	Workloads []string      // names; see Workloads
	Store     string        // of the coordinator: memory, sqlite or mysql
	MySQL     string        // a DSN: a database is made beside it, and dropped in the end; for --store mysql
	Kafka     []string      // brokers; empty: one in this process
	Dir       string        // for what is kept in files
	Clients   int           // that ask at once
	Rate      float64       // an open loop of so many a second; 0: each client asks again when it has its answer
	Open      bool          // overload's clients ask when they are due, answered or not
	Warmup    time.Duration // before counting begins
	For       time.Duration // of counting
	Messages  int           // of the workloads that work off a backlog
	Steps     int           // of a saga, branches of a TCC transaction
	Parallel  bool          // the steps of a saga run at once
	Payload   int           // bytes of a step's payload, or of a message
	Refuse    float64       // the share of sagas whose last step is refused
	Guard     bool          // participants claim and write in a database
	Scale     Scale         // how large what it runs on is; see its defaults
	Logger    *slog.Logger
}

// Validate returns every mistake at once.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	names := Workloads()
	for _, w := range c.Workloads {
		wrong(!slices.Contains(names, w), "workload %q is unknown: give one of %s", w, strings.Join(names, ", "))
	}
	wrong(len(c.Workloads) == 0, "no workload is given: give one of %s", strings.Join(names, ", "))
	wrong(!slices.Contains([]string{"memory", "sqlite", "mysql"}, c.Store), "store is %q: give memory, sqlite or mysql", c.Store)
	wrong(c.Store == "mysql" && c.MySQL == "", "store is mysql and no DSN is given: give --mysql")
	wrong(c.Clients < 1, "clients is %d: give 1 or more", c.Clients)
	wrong(c.Rate < 0, "rate is %v: give 0 for a closed loop, or more", c.Rate)
	wrong(c.Warmup < 0, "warm-up is %v: give 0 or more", c.Warmup)
	wrong(c.For <= 0, "the time to measure is %v: give more than 0", c.For)
	wrong(c.Messages < 1, "messages is %d: give 1 or more", c.Messages)
	wrong(c.Steps < 1 || c.Steps > 100, "steps is %d: give 1 to 100", c.Steps)
	wrong(c.Payload < 0 || c.Payload > 1<<20, "payload is %d bytes: give 0 to 1048576", c.Payload)
	wrong(c.Refuse < 0 || c.Refuse > 1, "refuse is %v: give a share from 0 to 1", c.Refuse)
	c.Scale.validate(c, wrong)
	return errors.Join(errs...)
}

// Report is what a run of the program measured.
type Report struct {
	Machine  Machine            `json:"machine"`
	Settings map[string]string  `json:"settings"`
	Limits   map[string]float64 `json:"limits,omitempty"` // per second, by name
	Results  []Result           `json:"results"`
}

// Result is what one workload measured.
type Result struct {
	Workload  string           `json:"workload"`
	Setup     string           `json:"setup"` // what tells it from others of its workload
	Started   int64            `json:"started"`
	Completed int64            `json:"completed"`
	Refused   int64            `json:"refused"` // by a coordinator that is full; a saga that turned back has completed
	Failed    int64            `json:"failed"`
	Unsent    int64            `json:"unsent,omitempty"`   // in an open loop, for too many were unanswered
	Failures  map[string]int64 `json:"failures,omitempty"` // by kind, where a workload tells
	Began     time.Time        `json:"began,omitzero"`     // when counting did: what else was sampled meanwhile goes with it
	Seconds   float64          `json:"seconds"`
	PerSecond float64          `json:"per_second"` // completed
	Latency   Latency          `json:"latency_ms"`
	Cost      Cost             `json:"cost"`
	Limit     string           `json:"limit,omitempty"`      // the one of Report.Limits that is nearest
	Fraction  float64          `json:"fraction,omitempty"`   // of it
	Ready     float64          `json:"ready_s,omitempty"`    // from the coordinator's start until it had driven a transaction to its end
	Memory    float64          `json:"memory_mib,omitempty"` // that the process held when counting ended
}

// Latency is in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Cost is per completed operation, of this process (coordinator, participants
// and clients together), and of the database server if there is one. Another
// user of that server is counted with us.
type Cost struct {
	CPUMicros  float64 `json:"cpu_us"`
	Allocs     float64 `json:"allocs"`
	AllocBytes float64 `json:"alloc_bytes"`
	Statements float64 `json:"db_statements,omitempty"`
	Fsyncs     float64 `json:"db_fsyncs,omitempty"`
	LogBytes   float64 `json:"db_log_bytes,omitempty"`
}

// Run measures what cfg names, one after the other, and tells say of each
// result as it comes.
func Run(ctx context.Context, cfg *Config, say func(Result)) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	rep := &Report{Machine: ThisMachine(cfg.Dir), Settings: map[string]string{"store": cfg.Store}}
	for _, name := range cfg.Workloads {
		if err := measure(ctx, cfg, name, rep, say); err != nil {
			return rep, fmt.Errorf("bench: %s: %w", name, err)
		}
	}
	for i := range rep.Results {
		rep.Results[i].compareWith(rep.Limits)
	}
	return rep, nil
}

// measure runs one workload in a rig of its own.
func measure(ctx context.Context, cfg *Config, name string, rep *Report, say func(Result)) (err error) {
	r, err := newRig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.settings(ctx, rep.Settings); err != nil {
		return err
	}
	if name == limitsName {
		rep.Limits, err = r.limits(ctx)
		return err
	}
	res, err := workloads[name].run(ctx, r)
	if err != nil {
		return err
	}
	res.Workload, res.Ready = name, r.ready.Seconds()
	if res.Memory == 0 {
		res.Memory = memory()
	}
	rep.Results = append(rep.Results, res)
	say(res)
	return nil
}

// compareWith names the limit of the machine that bounds a workload.
func (r *Result) compareWith(limits map[string]float64) {
	name := workloads[r.Workload].limit
	if most := limits[name]; most > 0 {
		r.Limit, r.Fraction = name, r.PerSecond/most
	}
}
