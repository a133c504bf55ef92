package inbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/amends-dev/amends/outbox"
)

const (
	requestTimeout = 5 * time.Second
	fetchWait      = 500 * time.Millisecond // for which a broker holds an empty answer back
	fetchBytes     = 1 << 20
)

// fetch reads a partition from its first offset not done, until the generation ends.
func (g *generation) fetch(ended context.Context, t *tracker) error {
	pause := g.pacer()
	for ended.Err() == nil {
		if err := g.fetchAll(ended, t, &pause); err != nil && ended.Err() == nil {
			g.c.cfg.Logger.Warn("Kafka: fetch failed, trying again", "topic", t.topic, "partition", t.partition, "error", err)
			g.c.transport.CloseIdleConnections() // the leader may have changed
			pause.wait(ended)
		}
	}
	return nil
}

// fetchAll fetches until something fails.
func (g *generation) fetchAll(ended context.Context, t *tracker, pause *pacer) error {
	if t.fetched() < 0 {
		first, err := g.c.firstOffset(ended, t)
		if err != nil {
			return err
		}
		t.start(first)
	}
	for t.room(ended, g.c.cfg.Buffer) {
		msgs, next, err := g.c.fetchOnce(ended, t)
		if errors.Is(err, kafka.OffsetOutOfRange) {
			g.c.cfg.Logger.Error("Kafka: the log no longer holds the next message: messages may be lost, going on with the first",
				"topic", t.topic, "partition", t.partition, "offset", t.fetched())
			t.start(-1)
			return err
		}
		if err != nil {
			return err
		}
		*pause = g.pacer()
		g.dispatch(ended, t, msgs, next)
	}
	return nil
}

// record is a message with its place in the log.
type record struct {
	offset  int64
	message outbox.Message
}

func (c *Consumer) fetchOnce(ctx context.Context, t *tracker) ([]record, int64, error) {
	from := t.fetched()
	res, err := c.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: t.topic, Partition: t.partition, Offset: from, MinBytes: 1, MaxBytes: fetchBytes, MaxWait: fetchWait,
		IsolationLevel: kafka.ReadCommitted,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, 0, err
	}
	return readRecords(res.Records, t.topic, t.partition, from)
}

func (c *Consumer) firstOffset(ctx context.Context, t *tracker) (int64, error) {
	res, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{t.topic: {kafka.FirstOffsetOf(t.partition)}},
	})
	if err != nil {
		return 0, err
	}
	for _, p := range res.Topics[t.topic] {
		if p.Partition == t.partition {
			return p.FirstOffset, p.Error
		}
	}
	return 0, fmt.Errorf("no answer for the first offset of %s/%d", t.topic, t.partition)
}

// readRecords decodes what was fetched from an offset on, without the control records of transactions, and answers
// the offset to fetch next.
func readRecords(r kafka.RecordReader, topic string, partition int, from int64) ([]record, int64, error) {
	batches := []protocol.RecordReader{r}
	if stream, ok := r.(*protocol.RecordStream); ok {
		batches = stream.Records
	}
	var out []record
	next, covered := from, false
	for _, batch := range batches {
		_, control := batch.(*protocol.ControlBatch)
		if b, ok := batch.(interface{ Offset() int64 }); ok {
			next, covered = max(next, b.Offset()+1), true // a compacted batch may hold no record any more
		}
		for {
			rec, err := batch.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, 0, err
			}
			next = max(next, rec.Offset+1)
			m, err := readMessage(rec, topic, partition)
			if err != nil {
				return nil, 0, err
			}
			if !control && rec.Offset >= from { // a batch may begin before what was asked for
				out = append(out, record{rec.Offset, m})
			}
		}
	}
	if covered && next == from {
		next++ // from itself is compacted away; how far its batch reaches kafka-go does not tell
	}
	return out, next, nil
}

func readMessage(rec *protocol.Record, topic string, partition int) (outbox.Message, error) {
	key, err := readBytes(rec.Key)
	if err != nil {
		return outbox.Message{}, err
	}
	m := outbox.Message{Topic: topic, Key: string(key), CreatedAt: rec.Time}
	if m.Body, err = readBytes(rec.Value); err != nil {
		return outbox.Message{}, err
	}
	for _, h := range rec.Headers {
		if h.Key == outbox.HeaderID && len(h.Value) > 0 {
			m.ID = string(h.Value)
			continue
		}
		if m.Headers == nil {
			m.Headers = make(map[string]string, len(rec.Headers))
		}
		m.Headers[h.Key] = string(h.Value)
	}
	if m.ID == "" {
		m.ID = fmt.Sprintf("%s/%d/%d", topic, partition, rec.Offset)
	}
	return m, nil
}

func readBytes(b protocol.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	defer b.Close() // gives the page back; it has no error to tell
	return protocol.ReadAll(b)
}
