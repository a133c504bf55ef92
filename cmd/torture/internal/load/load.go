package load

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/cmd/torture/internal/bank"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
)

// Config is a load.
type Config struct {
	Seed     uint64
	Clients  int
	Rate     float64       // requests of all clients per second
	Patience time.Duration // how long a client waits for one acknowledgement
	// Operators act on what goes on, this many at once; 0: nobody does.
	Operators int

	Conn  grpc.ClientConnInterface // to the coordinators
	Notes *sql.DB                  // of the lists
	Topic string
	// Journal keeps what clients are told.
	Journal *Journal
	Log     *slog.Logger // of the clients
}

// Load is clients at work.
type Load struct {
	Config

	client *sdk.Client
	writer *bank.Writer
	admin  amendsv1.OperatorServiceClient
	count  *counting
	recent recent
}

// New returns a load, which Run makes.
func New(c Config) *Load {
	return &Load{
		Config: c, client: sdk.NewClient(c.Conn, &sdk.ClientConfig{Logger: c.Log}), writer: bank.NewWriter(c.Notes, c.Topic),
		admin: amendsv1.NewOperatorServiceClient(c.Conn), count: newCounting(),
	}
}

// Figures are those so far.
func (l *Load) Figures() Figures { return l.count.figures() }

// Run works until ctx ends. A request under way is waited for, as long as
// Patience; who only waits for an end goes home.
func (l *Load) Run(ctx context.Context) error {
	var g errgroup.Group
	for i := range l.Clients {
		c := &client{Load: l, id: i, rnd: rand.New(rand.NewPCG(l.Seed, uint64(i)))}
		g.Go(func() error { return c.run(ctx) })
	}
	for i := range l.Operators {
		o := &operator{Load: l, id: i, rnd: rand.New(rand.NewPCG(l.Seed, uint64(1_000_000+i)))}
		g.Go(func() error { return o.run(ctx) })
	}
	return g.Wait()
}

// client is one of many.
type client struct {
	*Load

	id  int
	n   int // requests so far
	rnd *rand.Rand
}

func (c *client) run(ctx context.Context) error {
	mean := float64(c.Clients) / c.Rate // seconds between two requests of one client
	for sleep(ctx, time.Duration(c.rnd.ExpFloat64()*mean*float64(time.Second))) {
		c.n++
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Patience)
		c.one(ctx, asking)
		cancel()
	}
	return nil
}

// id of what the client does now.
func (c *client) name(kind string) string { return fmt.Sprintf("%s-%d-%d", kind, c.id, c.n) }

// one is one request: asking is for what must be answered, waiting for what can
// be left.
func (c *client) one(waiting, asking context.Context) {
	switch n := c.rnd.IntN(100); {
	case n < 25:
		transfer(waiting, asking, c, bank.Plain)
	case n < 45:
		transfer(waiting, asking, c, bank.Counted)
	case n < 55:
		transfer(waiting, asking, c, bank.Operated)
	case n < 75:
		c.swap(asking)
	case n < 92:
		c.append(asking)
	default:
		c.intend(asking)
	}
}

// draw makes up a transfer; some are refused, some take their time.
func (c *client) draw(note string) bank.Transfer {
	t := bank.Transfer{
		Seller: c.rnd.IntN(bank.Accounts), Buyer: c.rnd.IntN(bank.Accounts), FromWest: c.rnd.IntN(2) == 0,
		Cents: 1 + c.rnd.Int64N(bank.Opening/3), List: c.rnd.IntN(bank.Lists), Note: note, Refuse: c.rnd.IntN(8) == 0,
	}
	if c.rnd.IntN(4) == 0 {
		t.Slow = 1 + c.rnd.IntN(6)
	}
	return t
}

func transfer(waiting, asking context.Context, c *client, s saga.Saga[bank.Transfer]) {
	gid := c.name(s.Name())
	began := time.Now()
	run, err := sdk.Start(asking, c.client, s, c.draw("note-"+gid), &sdk.StartConfig{GID: gid})
	if !c.acked(gid, s.Name(), began, err) || c.rnd.IntN(4) == 0 {
		return
	}
	c.told(waiting, gid, s.Name(), run.Wait(waiting))
}

// acked notes what became of a start.
func (c *client) acked(gid, name string, began time.Time, err error) bool {
	switch {
	case err == nil:
		c.count.started(name, time.Since(began))
		c.Journal.Add(Line{What: Started, ID: gid, Name: name})
		c.recent.add(gid, name)
		return true
	case errors.Is(err, sdk.ErrOverloaded):
		c.count.add(func(f *Figures) { f.Overloaded++ })
	default:
		c.count.failed("start "+gid, err)
	}
	return false
}

// told notes what a client learned of an end.
func (c *client) told(waiting context.Context, gid, name string, err error) {
	var unknown *sdk.UnknownError
	end := ""
	switch {
	case err == nil:
		end = txn.Committed.String()
	case errors.Is(err, sdk.ErrRolledBack):
		end = txn.RolledBack.String()
	case errors.Is(err, sdk.ErrAbandoned):
		end = txn.Abandoned.String()
	case errors.As(err, &unknown) && unknown.State == txn.Parked, waiting.Err() != nil:
		return // somebody else ends it
	default:
		c.count.failed("wait for "+gid, err)
		return
	}
	c.count.add(func(f *Figures) { f.Told[name+" "+end]++ })
	c.Journal.Add(Line{What: Ended, ID: gid, Name: name, Told: end})
}

func (c *client) swap(asking context.Context) {
	gid := c.name(bank.SwapName)
	t := c.draw("")
	began := time.Now()
	begun := false
	err := sdk.RunTCC(asking, c.client, bank.SwapName, func(ctx context.Context, x *sdk.TCC) error {
		begun = c.acked(gid, bank.SwapName, began, nil)
		from, to := t.Sides()
		if _, err := sdk.Try(ctx, x, bank.Hold[from], bank.Move{Account: t.Seller, Cents: -t.Cents}); err != nil {
			return err
		}
		_, err := sdk.Try(ctx, x, bank.Hold[to], bank.Move{Account: t.Buyer, Cents: t.Cents, Refuse: t.Refuse})
		return err
	}, &sdk.TCCConfig{GID: gid, Timeout: c.Patience, EndTimeout: c.Patience})
	if !begun {
		c.acked(gid, bank.SwapName, began, err)
		return
	}
	c.told(context.WithoutCancel(asking), gid, bank.SwapName, err)
}

func (c *client) append(asking context.Context) {
	note := bank.Note{List: c.rnd.IntN(bank.Lists), ID: c.name("entry")}
	c.write(Appended, note.ID, c.rnd.IntN(7) == 0, func(rollBack bool) error {
		return c.writer.Append(asking, note, rollBack)
	})
}

func (c *client) intend(asking context.Context) {
	gid := c.name("intent")
	t := c.draw("note-" + gid)
	c.write(Intended, gid, c.rnd.IntN(5) == 0, func(rollBack bool) error {
		return c.writer.Intend(asking, gid, t, rollBack)
	})
}

// write notes what became of a local transaction. What was to be rolled back is
// a ghost before it is written, whatever becomes of it. Of one that failed
// nobody knows anything; that is the database's fault, not the coordinator's.
func (c *client) write(what, id string, rollBack bool, fn func(rollBack bool) error) {
	if rollBack {
		c.Journal.Add(Line{What: Ghost, ID: id})
	}
	err := fn(rollBack)
	switch {
	case err == nil && !rollBack:
		c.Journal.Add(Line{What: what, ID: id})
		c.count.add(func(f *Figures) { f.Started[what]++ })
	case errors.Is(err, bank.ErrChangedMind):
		c.count.add(func(f *Figures) { f.Started[Ghost]++ })
	default:
		c.count.add(func(f *Figures) { f.Started["database away"]++ })
	}
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
