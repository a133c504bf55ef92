package sdktest_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
)

const placed = "orders.placed"

// orders is a service without SQL: what it did is in a map, by gid.
type orders struct {
	mu     sync.Mutex
	done   map[string]bool // false: it never will be
	silent atomic.Bool     // its check does not know
	asked  atomic.Int32
}

// work does what belongs to gid, unless a check has ruled it out.
func (o *orders) work(_ context.Context, gid string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if done, ok := o.done[gid]; ok && !done {
		return sdk.Refuse(errors.New("too late"))
	}
	o.done[gid] = true
	return nil
}

// check rules out what it does not find before it says so.
func (o *orders) check(_ context.Context, gid string) (sdk.CheckResult, error) {
	o.asked.Add(1)
	if o.silent.Load() {
		return sdk.CheckUnknown, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done[gid] {
		return sdk.CheckCommitted, nil
	}
	o.done[gid] = false
	return sdk.CheckRolledBack, nil
}

func (o *orders) knows(gid string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done[gid]
}

// post is a whole stack: the service, a courier with its relay, and the log.
type post struct {
	*sdktest.World
	*orders
	t       *testing.T
	courier *sdk.Courier

	mu  sync.Mutex
	log []outbox.Message
}

func newPost(t *testing.T, cfg *sdktest.Config) *post {
	t.Helper()
	p := &post{World: sdktest.New(t, cfg), orders: &orders{done: map[string]bool{}}, t: t}
	db := p.DB("courier")
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	box := outbox.New(outbox.SQLite, nil)
	p.courier = sdk.NewCourier(box, db, &sdk.ParticipantConfig{Logger: quiet})
	p.Attend(p.courier)
	p.attendChecks()
	relay := outbox.NewRelay(box, db, outbox.PublishFunc(p.publish), &outbox.RelayConfig{PollMin: 2 * time.Second, PollMax: 2 * time.Second,
		Lease: time.Minute, Sweep: time.Hour, Logger: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *post) attendChecks() (stop func()) {
	checker := sdk.NewChecker("orders", &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleCheck(checker, placed, p.check)
	return p.Attend(checker)
}

func (p *post) publish(_ context.Context, m outbox.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, m)
	return nil
}

func (p *post) published() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make([]string, len(p.log))
	for i, m := range p.log {
		ids[i] = m.ID
	}
	return ids
}

// send sends a message under a gid, which is also its id.
func (p *post) send(gid, key string, work func(context.Context, string) error) error {
	m := outbox.Message{Topic: placed, Key: key, Body: []byte(gid)}
	return sdk.SendMessage(p.t.Context(), p.Client(), m, placed, work, &sdk.MessageConfig{GID: gid})
}

// dies is a sender that dies after its work: nobody hears of it.
var errDied = errors.New("died")

func (p *post) dies(ctx context.Context, gid string) error {
	return errors.Join(p.work(ctx, gid), errDied)
}

func (p *post) end(gid string) txn.State {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Hour)
	defer cancel()
	_ = p.Client().Run(gid).Wait(ctx) // the state tells more
	state, err := p.Client().Run(gid).State(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return state
}

func inPost(t *testing.T, cfg *sdktest.Config, fn func(t *testing.T, p *post)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newPost(t, cfg)) })
}
