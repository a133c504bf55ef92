package outbox

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// send publishes a batch. When there are more to come, and no need to rest between
// them, the page before is deleted meanwhile and the next one is read.
func (p *partition) send(ctx context.Context, b *batch, more bool) error {
	left := p.lease.left()
	if !more || !p.r.pace.unbounded() {
		p.publish(ctx, b, left)
		return nil
	}
	var g errgroup.Group
	next := &ahead{after: b.last, pass: p.w.pass}
	g.Go(func() error { return p.settle(ctx) })
	g.Go(func() (err error) {
		next.page, err = p.read(ctx, next.after)
		return err
	})
	p.publish(ctx, b, left)
	err := g.Wait()
	if err == nil {
		p.ahead = next
	}
	return err
}

// publish sends the batch and notes the acknowledged rows in Keys. It may last
// until shortly before the end of the lease, also when ctx ends meanwhile: half
// of a batch whose fate nobody knows would be published again. left is that of the lease.
func (p *partition) publish(ctx context.Context, b *batch, left time.Duration) {
	pctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), left-left/4)
	defer cancel()
	msgs := make([]Message, 0, len(b.send))
	at := make([]int, 0, len(b.send))
	b.errs = make([]error, len(b.send))
	for i, r := range b.send {
		if r.err != nil {
			b.errs[i] = Poison(r.err)
			continue
		}
		msgs, at = append(msgs, r.msg), append(at, i)
	}
	if len(msgs) > 0 {
		for j, err := range publishAll(pctx, p.r.pub, msgs) {
			b.errs[at[j]] = err
		}
	}
	p.mark(ctx, b)
}

// mark notes what was acknowledged in Keys.
func (p *partition) mark(ctx context.Context, b *batch) {
	if p.r.keys.keys == nil {
		return
	}
	var ids, idems []string
	for i := range b.send {
		if b.errs[i] != nil {
			continue
		}
		ids = append(ids, p.ackID(&b.send[i]))
		if k := idempotency(&b.send[i].msg); k != "" {
			idems = append(idems, k)
		}
	}
	if len(ids) > 0 {
		p.r.keys.markAcked(ctx, p.lease.part, ids)
	}
	if len(idems) > 0 {
		p.r.keys.markSeen(ctx, idems)
	}
}
