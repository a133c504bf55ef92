package inbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// requeueBatch is how many dead letters are published, and then recorded, together.
const requeueBatch = 100

// RequeueRequest says which dead letters go back to their topic.
type RequeueRequest struct {
	DeadLetterFilter
	// All allows an empty filter: every dead letter that is there now.
	All bool
	// Partition and Offset pick one letter; Offset -1 picks by the filter.
	Partition int
	Offset    int64
	// Reason and Actor say why and who, for the record. A reason is required.
	Reason, Actor string
	// DryRun only counts.
	DryRun bool
}

// RequeueResult is what Requeue did.
type RequeueResult struct {
	Requeued int          // letters that went back, or would
	Refused  []DeadLetter // letters that have no body, so they stay; at most 100 are named
	Left     int          // how many stay for that reason
}

// Requeue publishes dead letters to the topic that they came from, behind what is there, with the same id, key and
// headers; those of one key in the order in which they were given up. The group that gave a letter up handles it
// like a new message; a group that has handled it finds its claim, or its mark (but not by
// HighWaterOffset). It goes up to the end that the log had when it began, so that what fails again is not requeued for
// ever.
//
// It is safe to repeat. What was requeued is recorded after it was published, and is picked again only by
// Filter.Requeued; after a crash between the two a letter is published twice, and the second one is a duplicate to
// consumers. After an error the result tells how many letters went back before it.
func (d *DeadLetters) Requeue(ctx context.Context, req RequeueRequest) (res RequeueResult, err error) {
	if err := req.check(); err != nil {
		return res, err
	}
	cursors, err := d.cursors(ctx, false, "")
	if err != nil {
		return res, err
	}
	done, err := d.requeued(ctx)
	if err != nil {
		return res, err
	}
	for _, c := range cursors {
		if req.Offset >= 0 {
			if c.at.Partition != req.Partition {
				continue
			}
			c.next, c.end = max(c.first, req.Offset), min(c.end, req.Offset+1)
		}
		c.bodies = true
		c.keep = func(l *DeadLetter) bool { return req.picks(l, done) && (req.Offset < 0 || l.Offset == req.Offset) }
		if err := d.requeueFrom(ctx, c, &req, &res); err != nil {
			return res, fmt.Errorf("inbox: requeue: %w", err)
		}
	}
	if res.Requeued+res.Left == 0 && req.Offset >= 0 {
		return res, fmt.Errorf("%w at %d/%d of %s, or it was requeued before", ErrNoDeadLetter, req.Partition, req.Offset,
			DeadTopic(d.topic))
	}
	return res, nil
}

func (req *RequeueRequest) check() error {
	var errs []error
	if strings.TrimSpace(req.Reason) == "" {
		errs = append(errs, errors.New("inbox: requeue: field Reason is empty: say why, for the record"))
	}
	if none := req.ID == "" && req.Key == "" && req.Group == "" && req.Offset < 0; none && !req.All {
		errs = append(errs, errors.New("inbox: requeue: say which dead letters: set Offset, ID, Key, Group or All"))
	}
	return errors.Join(errs...)
}

// requeueFrom requeues what is left of a partition, in order.
func (d *DeadLetters) requeueFrom(ctx context.Context, c *cursor, req *RequeueRequest, res *RequeueResult) error {
	for {
		var batch []*DeadLetter
		for size := 0; len(batch) < requeueBatch && size < fetchBytes; {
			l, err := c.peek(ctx)
			if err != nil {
				return err
			}
			if l == nil {
				break
			}
			size += l.Size
			if c.take(); !l.BodyLeftOut {
				batch = append(batch, l)
				continue
			}
			if res.Left++; res.Left <= requeueBatch {
				res.Refused = append(res.Refused, *l)
			}
		}
		if len(batch) == 0 {
			return nil
		}
		if req.DryRun {
			res.Requeued += len(batch)
			continue
		}
		n, err := d.publish(ctx, batch, req)
		res.Requeued += n
		if err != nil {
			return err
		}
	}
}

// publish sends letters back and records those that are acknowledged.
func (d *DeadLetters) publish(ctx context.Context, batch []*DeadLetter, req *RequeueRequest) (n int, err error) {
	msgs := make([]outbox.Message, len(batch))
	for i, l := range batch {
		msgs[i] = l.again()
	}
	errs := d.pub.Publish(ctx, msgs)
	var records []outbox.Message
	for i, l := range batch {
		if errs == nil || errs[i] == nil {
			records = append(records, l.record(req))
		}
	}
	// What is in the topic is recorded even when ctx has ended meanwhile.
	recorded := firstOf(d.pub.Publish(context.WithoutCancel(ctx), records))
	if recorded != nil {
		recorded = fmt.Errorf("what went back could not all be recorded (requeued again, it is a duplicate to consumers): %w", recorded)
	}
	return len(records), errors.Join(firstOf(errs), recorded)
}

// firstOf is the first error of many that are most likely the same.
func firstOf(errs []error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// again is the message to publish. It keeps whose letter it was, as that group goes by its claim, and when it was
// written; the copy's own time is new, for retention to count from.
func (l *DeadLetter) again() outbox.Message {
	m := l.Message
	m.Headers = maps.Clone(m.Headers)
	if m.Headers == nil {
		m.Headers = map[string]string{}
	}
	m.Headers[HeaderRequeued] = deadPlace{l.Partition, l.Offset}.String()
	m.Headers[HeaderGroup] = l.Group
	if !m.CreatedAt.IsZero() {
		m.Headers[HeaderCreated] = m.CreatedAt.UTC().Format(time.RFC3339Nano)
	}
	m.CreatedAt = time.Time{}
	return m
}
