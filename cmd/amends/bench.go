package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/cmd/amends/internal/bench"
)

// benching is 'amends bench'.
type benching struct {
	cfg     bench.Config
	repeat  int
	json    string
	compare string
}

func newBench() *cobra.Command {
	var b benching
	cmd := &cobra.Command{
		Use:   "bench [workload]...",
		Short: "Measure what Amends does on this machine",
		Long: `Measure what Amends does on this machine, with a coordinator, participants and
clients in this process that talk over loopback TCP. What completed is counted;
what was refused or failed is counted apart. Without a workload it measures
limits, saga, tcc and outbox.

  limits    what the machine can do at best: fsyncs, inserts, requests, messages
  saga      sagas of --steps steps to their end, each waited for
  tcc       TCC transactions of --steps branches, likewise
  hot-key   sagas whose participants all write to the same rows (with --guard)
  start-tx  sagas that are started in a local transaction, likewise
  business  local transactions that write one row, to compare with
  outbox    the same, with a message in the outbox
  relay     a backlog of --messages published
  consume   as many messages handled once, from the log
  latency   from a message's commit to its handler, at --rate
  overload  sagas at twice the rate of a closed loop of 64 clients, or at --rate,
            by --clients of which each waits for its answer, and stays away for
            as long as a refusal says: what completes while they are offered;
            with --open none waits, and what is refused is not asked again

--store mysql makes a database of its own beside the one of the DSN and drops it in
the end. Its statements and fsyncs are the server's own counters: what else uses
that server is counted with us. Without --kafka the broker is one in this process,
whose figures are not a real one's.` + "\n" + aboutDSN,
		Example: `  amends bench
  amends bench saga --store memory --clients 8 --for 5s
  ` + mysqlEnv + `='root:…@tcp(127.0.0.1:3306)/mysql' amends bench saga tcc --store mysql --repeat 5 --json after.json
  amends bench latency --rate 1000
  amends bench --compare before.json,after.json`,
		RunE: func(cmd *cobra.Command, workloads []string) error {
			if b.compare != "" {
				return b.showCompared(cmd.OutOrStdout())
			}
			if b.cfg.Workloads = workloads; len(workloads) == 0 {
				b.cfg.Workloads = []string{"limits", "saga", "tcc", "outbox"}
			}
			return b.run(cmd)
		},
	}
	b.flags(cmd)
	scaleFlags(cmd, &b.cfg.Scale)
	return cmd
}

func (b *benching) flags(cmd *cobra.Command) {
	f, c := cmd.Flags(), &b.cfg
	f.StringVar(&c.Store, "store", "sqlite", "where the coordinator keeps transactions: memory, sqlite or mysql")
	f.StringVar(&c.MySQL, "mysql", "", "MySQL or MariaDB server, as a `DSN` (better in "+mysqlEnv+")")
	f.StringSliceVar(&c.Kafka, "kafka", nil, "`brokers` to publish to (default: one in this process)")
	f.StringVar(&c.Dir, "dir", os.TempDir(), "measure files in this `directory`: a file system in memory has no fsync")
	f.IntVar(&c.Clients, "clients", 64, "clients that ask at once")
	f.Float64Var(&c.Rate, "rate", 0, "an open loop of so many a second (default: a closed one)")
	f.BoolVar(&c.Open, "open", false, "overload: clients ask when they are due, with up to 64 requests each unanswered")
	f.DurationVar(&c.Warmup, "warmup", time.Second, "time before counting begins")
	f.DurationVar(&c.For, "for", 5*time.Second, "time to count")
	f.IntVar(&c.Messages, "messages", 100_000, "messages of a backlog")
	f.IntVar(&c.Steps, "steps", 2, "steps of a saga, branches of a TCC transaction")
	f.BoolVar(&c.Parallel, "parallel", false, "run the steps of a saga at once")
	f.IntVar(&c.Payload, "payload", 0, "`bytes` of each payload and message")
	f.Float64Var(&c.Refuse, "refuse", 0, "`share` of the transactions whose last step is refused, 0 to 1")
	f.BoolVar(&c.Guard, "guard", false, "participants write to a database, behind the guard (default: they say yes)")
	f.IntVar(&b.repeat, "repeat", 1, "measure all so many times, in turns")
	f.StringVar(&b.json, "json", "", "write the results to this `file`")
	f.StringVar(&b.compare, "compare", "", "compare the results in two `files`, separated by a comma, and measure nothing")
}

func (b *benching) run(cmd *cobra.Command) error {
	if b.repeat < 1 {
		return usagef("--repeat is %d: give 1 or more", b.repeat)
	}
	if b.cfg.Store == "mysql" && b.cfg.MySQL == "" {
		b.cfg.MySQL = os.Getenv(mysqlEnv)
	}
	if err := b.cfg.Validate(); err != nil {
		return usagef("%v", err)
	}
	b.cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
	var all *bench.Report
	for range b.repeat {
		rep, err := bench.Run(cmd.Context(), &b.cfg, func(r bench.Result) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s (%s): %.0f/s, %d failed\n", r.Workload, r.Setup, r.PerSecond, r.Failed)
		})
		if err != nil {
			return err
		}
		if all == nil {
			all = rep
		} else {
			all.Results = append(all.Results, rep.Results...)
		}
	}
	return errors.Join(all.Print(cmd.OutOrStdout()), b.write(all))
}

func (b *benching) write(rep *bench.Report) error {
	if b.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.json, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("--json: %w", err)
	}
	return nil
}

func (b *benching) showCompared(w io.Writer) error {
	before, after, two := strings.Cut(b.compare, ",")
	if !two || strings.Contains(after, ",") {
		return usagef("--compare is %q: give two files, separated by a comma", b.compare)
	}
	reports := make([]*bench.Report, 0, 2)
	for _, path := range []string{before, after} {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("--compare: %w", err)
		}
		rep := new(bench.Report)
		if err := json.Unmarshal(text, rep); err != nil {
			return fmt.Errorf("--compare: %s is not what --json writes: %w", path, err)
		}
		reports = append(reports, rep)
	}
	return bench.Compare(w, reports[0], reports[1])
}
