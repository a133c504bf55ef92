package scene

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
	"github.com/amends-dev/amends/cmd/torture/internal/world"
	"github.com/amends-dev/amends/deploy/services"
)

// ResumeConfig is a coordinator that is killed with much in flight.
type ResumeConfig struct {
	Amends, Self string
	Servers      map[services.Service]string
	Dial         bank.Dial
	Out          io.Writer

	InFlight int           // transactions
	Hanging  int           // of these, how many wait for a participant that never answers
	Rest     time.Duration // how long they may take to end
	Lease    time.Duration
}

// ResumeReport is what came of it.
type ResumeReport struct {
	InFlight int `json:"in_flight"` // when the coordinator was killed
	Hanging  int `json:"hanging"`
	Ended    int `json:"ended"`

	StartSeconds float64 `json:"start_s"`        // until all were acknowledged
	FirstSeconds float64 `json:"first_call_s"`   // from the kill to the first call
	AllSeconds   float64 `json:"last_resumed_s"` // from the kill to the first call of the last one
	LastSeconds  float64 `json:"last_end_s"`     // from the kill to the last end
	ResumeRate   float64 `json:"resumed_per_s"`  // first calls, from the first to the last
	EndRate      float64 `json:"ended_per_s"`    // ends, from the first call to the last end
	PeakRSS      int64   `json:"peak_rss_bytes"` // of the coordinator after the kill
	CPUSeconds   float64 `json:"cpu_s"`          // of it, until the last end; 0: unknown
}

// resuming is a scene that goes on.
type resuming struct {
	ResumeConfig

	w      *world.World
	db     *sql.DB
	drill  *drill
	hang   *drill
	report ResumeReport
}

// Resume starts transactions whose participants are away, kills the only
// coordinator, and measures how the next one brings them to their end once the
// participants are there.
func Resume(ctx context.Context, c ResumeConfig) (_ *ResumeReport, err error) {
	dir, err := os.MkdirTemp("", "amends-torture-")
	if err != nil {
		return nil, err
	}
	w, err := world.Open(ctx, world.Config{
		Dir: dir, Amends: c.Amends, Self: c.Self, Coordinators: 1, Lease: c.Lease, Bare: true, Servers: c.Servers,
		MaxLive: 2*c.InFlight + 1000, // one service that is away holds half of it at most
	})
	defer func() { err = errors.Join(err, w.Close(false), os.RemoveAll(dir)) }()
	if err != nil {
		return nil, err
	}
	r := &resuming{ResumeConfig: c, w: w}
	if r.db, err = bank.Open(w.DSN(world.Coordinators), 2); err != nil {
		return nil, err
	}
	defer r.db.Close() // it was read only
	if err := w.Run(ctx, r.run); err != nil {
		return nil, err
	}
	return &r.report, ctx.Err()
}

func (r *resuming) say(format string, args ...any) {
	fmt.Fprintf(r.Out, time.Now().UTC().Format("15:04:05.000")+"  "+format+"\n", args...)
}

func (r *resuming) run(ctx context.Context) error {
	conn, closer, err := r.Dial(r.w.Addresses(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer closer.Close() // nobody uses it any more
	began := time.Now()
	starting, cancel := context.WithTimeout(ctx, r.Rest)
	defer cancel()
	if err := startMany(starting, conn, r.InFlight-r.Hanging, r.Hanging); err != nil {
		return fmt.Errorf("starting %d transactions: %w", r.InFlight, err)
	}
	r.report.StartSeconds = time.Since(began).Seconds()
	if err := r.count(ctx, unfinishedSQL, &r.report.InFlight); err != nil {
		return err
	}
	r.report.Hanging = r.Hanging
	r.say("%d transactions are in flight after %.1f s", r.report.InFlight, r.report.StartSeconds)
	c := r.w.Role(world.Coordinator)[0]
	life, _ := c.Up()
	c.Hold()
	if _, done := c.Kill(); !done {
		return errors.New("the coordinator ended by itself")
	}
	killed := time.Now()
	if _, err := c.AwaitExit(ctx); err != nil {
		return err
	}
	c.ForgetPeak()
	attending, stop := context.WithCancel(ctx)
	defer stop()
	g, attending := errgroup.WithContext(attending)
	r.drill, r.hang = newDrill(drillService, true), newDrill(hangService, false)
	g.Go(func() error { return r.drill.run(attending, conn) })
	if r.Hanging > 0 {
		g.Go(func() error { return r.hang.run(attending, conn) })
	}
	g.Go(func() error {
		defer stop()
		c.Release()
		if err := c.AwaitReady(attending, life); err != nil {
			return err
		}
		return r.await(attending, killed, c)
	})
	return g.Wait()
}

const (
	unfinishedSQL = `SELECT count(*) FROM amends_transactions WHERE finished_at IS NULL`
	finishedSQL   = `SELECT count(*) FROM amends_transactions WHERE finished_at IS NOT NULL`
	lastEndSQL    = `SELECT coalesce(max(finished_at), 0) FROM amends_transactions WHERE finished_at IS NOT NULL`
)

func (r *resuming) count(ctx context.Context, query string, to *int) error {
	return r.db.QueryRowContext(ctx, query).Scan(to)
}

// await returns when all that can end have ended, or had their time.
func (r *resuming) await(ctx context.Context, killed time.Time, c *world.Member) error {
	soon, cancel := context.WithTimeout(ctx, r.Rest)
	defer cancel()
	want := r.InFlight - r.Hanging
	for r.report.Ended < want && sleep(soon, settleEvery) {
		if err := r.count(ctx, finishedSQL, &r.report.Ended); err != nil {
			return err
		}
		c.PeakRSS()
	}
	r.report.CPUSeconds = c.CPU().Seconds()
	var last int64
	if err := r.db.QueryRowContext(ctx, lastEndSQL).Scan(&last); err != nil {
		return err
	}
	first, all := r.drill.times()
	at := func(t time.Time) float64 { return t.Sub(killed).Seconds() }
	r.report.FirstSeconds, r.report.AllSeconds, r.report.LastSeconds = at(first), at(all), at(time.UnixMicro(last))
	if took := r.report.AllSeconds - r.report.FirstSeconds; took > 0 {
		r.report.ResumeRate = float64(r.drill.resumed()) / took
	}
	if took := r.report.LastSeconds - r.report.FirstSeconds; took > 0 {
		r.report.EndRate = float64(r.report.Ended) / took
	}
	r.report.PeakRSS = c.PeakRSS()
	return nil
}

// CPUEach is the processor time of the coordinator for each that ended, in
// seconds, which tells more than the rate on a machine that does other things, too.
func (r *ResumeReport) CPUEach() float64 { return r.CPUSeconds / float64(max(r.Ended, 1)) }

// Complete reports whether all ended that could.
func (r *ResumeReport) Complete() bool { return r.Ended >= r.InFlight-r.Hanging }

// Print writes the report in lines.
func (r *ResumeReport) Print(w io.Writer) error {
	_, err := fmt.Fprintf(w, `in flight at the kill    %d (%d of them at a participant that never answers)
ended                    %d
first call               %.2f s after the kill
all resumed              %.2f s after the kill, %.0f/s
last end                 %.2f s after the kill, %.0f/s
peak memory              %d MB
processor time           %.1f s, %.2f ms for each that ended
`, r.InFlight, r.Hanging, r.Ended, r.FirstSeconds, r.AllSeconds, r.ResumeRate, r.LastSeconds, r.EndRate, r.PeakRSS>>20,
		r.CPUSeconds, r.CPUEach()*1000)
	return err
}

// sleep reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
