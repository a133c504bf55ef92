package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/sdk"
)

// cluster is three coordinators on one database, and one connection to them all.
type cluster struct {
	env   []string
	addrs []string
	procs []*process
	conn  *sdk.Cluster
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed(t), 3))
	c := &cluster{env: environ("AMENDS_MYSQL_DSN=" + servicestest.MySQL(t))}
	for i := range 3 {
		c.addrs = append(c.addrs, freePort(t, rnd))
		c.procs = append(c.procs, c.start(t, i))
	}
	var err error
	c.conn, err = sdk.Dial(c.addrs, &sdk.DialConfig{PollInterval: 200 * time.Millisecond, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

// start starts the i-th coordinator, at its address.
func (c *cluster) start(t *testing.T, i int) *process {
	t.Helper()
	p := startIn(t, c.env, "serve", "--listen", c.addrs[i], "--name", fmt.Sprintf("m%d", i), "--lease-ttl", "1s")
	p.waitFor(t, `^amends: serving on `)
	return p
}

// shards waits until `amends cluster members`, asked at the i-th, says that all
// shards are owned, and that the lines that match are as many.
func (c *cluster) shards(t *testing.T, i, want int, line string) string {
	t.Helper()
	re, out := regexp.MustCompile(`(?m)`+line), ""
	eventually(t, fmt.Sprintf("%d members match %s", want, line), func() bool {
		out = amends(t, "cluster", "members", "--addr", c.addrs[i]).stdout
		return len(re.FindAllString(out, -1)) == want && strings.Contains(out, "nobody owns 0\n")
	})
	return out
}

// TestRollingRestart restarts each of three coordinators under load, drains one,
// and kills one: no request fails, and every payment is made once.
func TestRollingRestart(t *testing.T) {
	c := startCluster(t)
	b := openBank(t, c.conn)
	client := sdk.NewClient(c.conn, &sdk.ClientConfig{Logger: quiet()})
	const evenly = `^m\d-\S+ +(\(answers\) +)?8[0-9] +active `
	c.shards(t, 0, 3, evenly)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var paid atomic.Int64
	var load errgroup.Group
	for who := range 6 {
		load.Go(func() error {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("pay-%d-%d", who, n)
				bounded, cancel := context.WithTimeout(t.Context(), patience)
				run, err := begin(bounded, client, id, false)
				if err == nil {
					err = run.Wait(bounded)
				}
				cancel()
				if err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
				paid.Add(1)
			}
			return nil
		})
	}
	goesOn := func() {
		t.Helper()
		before := paid.Load()
		eventually(t, "payments are made", func() bool { return paid.Load() > before+20 })
	}
	for i := range c.procs {
		goesOn()
		if code := c.procs[i].stop(t); code != 0 {
			t.Errorf("m%d ended with %d", i, code)
		}
		goesOn()
		c.procs[i] = c.start(t, i)
		c.shards(t, i, 3, evenly)
	}
	if out := ok(t, "cluster", "drain", "m1", "--reason", "a new disk", "--addr", c.addrs[0]); !regexp.MustCompile(`(?m)^m1-\S+ +0 +drained `).MatchString(out) {
		t.Errorf("drained:\n%s", out)
	}
	goesOn()
	ok(t, "cluster", "undrain", "m1", "--reason", "it is there", "--addr", c.addrs[2])
	c.shards(t, 0, 3, evenly)
	c.procs[2].kill()
	goesOn()
	c.shards(t, 0, 2, `^m\d-\S+ +(\(answers\) +)?128 +active `)
	stop()
	if err := load.Wait(); err != nil {
		t.Errorf("a request failed: %v", err)
	}
	t.Logf("%d payments", paid.Load())
	for id, entries := range b.ledger(t) {
		if entries != 2 {
			t.Errorf("%s has %d entries", id, entries)
		}
	}
}
