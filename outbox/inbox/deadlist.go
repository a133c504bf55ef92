package inbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// DeadLetterFilter picks dead letters; what is empty picks all.
type DeadLetterFilter struct {
	ID, Key, Group string
	// Requeued picks those that were requeued, too.
	Requeued bool
}

func (f *DeadLetterFilter) picks(l *DeadLetter, done requeues) bool {
	l.Requeued = done.of(l)
	return (f.ID == "" || f.ID == l.Message.ID) && (f.Key == "" || f.Key == l.Message.Key) &&
		(f.Group == "" || f.Group == l.Group) && (f.Requeued || l.Requeued == nil)
}

// DeadLetterQuery asks for a page of dead letters.
type DeadLetterQuery struct {
	DeadLetterFilter
	// Newest lists those that failed last first; otherwise those that failed first come first. Those of one partition
	// come in the order of the log, or against it.
	Newest bool
	// Limit is how many at most; above 0.
	Limit int
	// Page, from an earlier answer to the same query, goes on after it.
	Page string
}

// List answers dead letters without their bodies, and the Page to go on with, "" at the end. It reads the log until it
// has found enough; a filter makes it read more.
func (d *DeadLetters) List(ctx context.Context, q DeadLetterQuery) (page []DeadLetter, next string, err error) {
	if q.Limit <= 0 {
		return nil, "", errors.New("inbox: dead letters: field Limit must be above 0")
	}
	cursors, err := d.cursors(ctx, q.Newest, q.Page)
	if err != nil {
		return nil, "", err
	}
	done, err := d.requeued(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, c := range cursors {
		c.keep = func(l *DeadLetter) bool { return q.picks(l, done) }
	}
	for len(page) < q.Limit {
		best, err := first(ctx, cursors)
		if err != nil {
			return nil, "", err
		}
		if best == nil {
			return page, "", nil
		}
		page = append(page, *best.take())
	}
	if best, err := first(ctx, cursors); err != nil || best == nil {
		return page, "", err
	}
	return page, pageOf(cursors, q.Newest), nil
}

// first is the cursor whose next letter comes first, or nil.
func first(ctx context.Context, cursors []*cursor) (best *cursor, err error) {
	for _, c := range cursors {
		l, err := c.peek(ctx)
		if err != nil {
			return nil, err
		}
		if l != nil && (best == nil || l.Failed.Before(best.queue[0].Failed) != c.newest && !l.Failed.Equal(best.queue[0].Failed)) {
			best = c
		}
	}
	return best, nil
}

// span is what a partition's log holds: offsets from first, before end.
type span struct{ first, end int64 }

// spans asks for those of a topic's partitions. A topic that does not exist has none.
func (d *DeadLetters) spans(ctx context.Context, topic string) (out []span, err error) {
	d.transport.CloseIdleConnections() // and with them what it knows of topics, which may be new
	err = d.again(ctx, func() error {
		meta, err := d.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return err
		}
		if err := meta.Topics[0].Error; err != nil {
			if errors.Is(err, kafka.UnknownTopicOrPartition) {
				out = nil
				return nil
			}
			return err
		}
		out = make([]span, len(meta.Topics[0].Partitions))
		if len(out) == 0 {
			return nil
		}
		var firsts, ends []kafka.OffsetRequest
		for p := range out {
			firsts, ends = append(firsts, kafka.FirstOffsetOf(p)), append(ends, kafka.LastOffsetOf(p))
		}
		return errors.Join(d.offsets(ctx, topic, firsts, func(p int, at int64) { out[p].first = at }),
			d.offsets(ctx, topic, ends, func(p int, at int64) { out[p].end = at }))
	})
	if err != nil {
		return nil, fmt.Errorf("inbox: dead letters: %s: %w", topic, err)
	}
	return out, nil
}

// offsets asks for the first or last offset of each partition, which have to be asked for apart.
func (d *DeadLetters) offsets(ctx context.Context, topic string, of []kafka.OffsetRequest, take func(partition int, at int64)) error {
	res, err := d.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: of}, IsolationLevel: kafka.ReadCommitted,
	})
	if err != nil {
		return err
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return p.Error
		}
		take(p.Partition, max(p.FirstOffset, p.LastOffset))
	}
	return nil
}

// readTries bounds how often a read is tried while leaders change.
const readTries = 6

// again tries a read until it succeeds, some times.
func (d *DeadLetters) again(ctx context.Context, read func() error) error {
	for pause, n := (pacer{50 * time.Millisecond, time.Second}), 1; ; n++ {
		err := read()
		if err == nil || n == readTries || !pause.wait(ctx) {
			return err
		}
		d.transport.CloseIdleConnections() // and with them what is known of the leaders
	}
}

// cursor reads the dead letters of a partition, forward from next to end, or backward from next to first.
type cursor struct {
	d          *DeadLetters
	at         TopicPartition
	first, end int64
	next       int64 // forward: the offset to go on with; backward: all before it is still to come
	newest     bool  // backward
	bodies     bool
	keep       func(*DeadLetter) bool
	queue      []*DeadLetter
	read       int64 // forward: what was read up to; backward: down to
	begun      bool
}

// backWindow is how many offsets one look backward takes in.
const backWindow = 200

// peek is the next letter, or nil at the end.
func (c *cursor) peek(ctx context.Context) (*DeadLetter, error) {
	if !c.begun {
		c.begun, c.read = true, c.next
	}
	for len(c.queue) == 0 {
		from, to := c.read, c.end
		if c.newest {
			from, to = max(c.first, c.read-backWindow), c.read
		}
		if from >= to {
			c.next = c.read
			return nil, nil
		}
		if err := c.load(ctx, from, to); err != nil {
			return nil, fmt.Errorf("inbox: dead letters: read %s/%d: %w", c.at.Topic, c.at.Partition, err)
		}
	}
	return c.queue[0], nil
}

// load reads letters from an offset on: one fetch forward, all up to an offset backward.
func (c *cursor) load(ctx context.Context, from, to int64) error {
	at := from
	for at < to {
		var records []record
		err := c.d.again(ctx, func() (err error) {
			var next int64
			records, next, _, err = fetchRecords(ctx, c.d.client, c.at, at, fetchBytes)
			if err == nil {
				at = next
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range records {
			if l := c.d.letterOf(r, c.at.Partition); r.offset < to && c.keep(l) {
				if !c.bodies {
					l.Message.Body = nil
				}
				c.queue = append(c.queue, l)
			}
		}
		if !c.newest {
			c.read = min(at, to)
			return nil
		}
	}
	c.read = from
	for i, j := 0, len(c.queue)-1; i < j; i, j = i+1, j-1 {
		c.queue[i], c.queue[j] = c.queue[j], c.queue[i]
	}
	return nil
}

// take removes the letter that peek found.
func (c *cursor) take() *DeadLetter {
	l := c.queue[0]
	c.queue = c.queue[1:]
	c.next = l.Offset + 1
	if c.newest {
		c.next = l.Offset
	}
	return l
}

// cursors begin at the ends of the log, or where a page ended.
func (d *DeadLetters) cursors(ctx context.Context, newest bool, page string) ([]*cursor, error) {
	spans, err := d.spans(ctx, DeadTopic(d.topic))
	if err != nil {
		return nil, err
	}
	out := make([]*cursor, len(spans))
	for p, s := range spans {
		out[p] = &cursor{d: d, at: TopicPartition{DeadTopic(d.topic), p}, first: s.first, end: s.end, next: s.first, newest: newest}
		if newest {
			out[p].next = s.end
		}
	}
	if page == "" {
		return out, nil
	}
	wrong := fmt.Errorf("%w: %q", ErrDeadLetterPage, page)
	rest, ok := strings.CutPrefix(page, direction(newest))
	if !ok {
		return nil, wrong
	}
	for i, text := range strings.Split(rest, ".") {
		n, err := strconv.ParseInt(text, 36, 64)
		if err != nil || n < 0 || i >= len(out) {
			return nil, wrong
		}
		if n > out[i].end {
			return nil, fmt.Errorf("%w: %s was made anew since, or has lost its end: list it from the start", ErrDeadLetterPage, DeadTopic(d.topic))
		}
		out[i].next = max(n, out[i].first)
	}
	return out, nil
}

func direction(newest bool) string {
	if newest {
		return "n"
	}
	return "o"
}

// pageOf tells where each partition goes on.
func pageOf(cursors []*cursor, newest bool) string {
	texts := make([]string, len(cursors))
	for i, c := range cursors {
		texts[i] = strconv.FormatInt(c.next, 36)
	}
	return direction(newest) + strings.Join(texts, ".")
}
