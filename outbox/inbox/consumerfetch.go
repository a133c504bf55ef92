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
	minFetchBytes  = 64 << 10        // less would be many requests for few messages
	lagInterval    = 5 * time.Second // between two looks at the high watermark while nothing is fetched
)

// fetch reads a partition from its first offset not fetched, until the generation ends.
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
		first, err := g.c.offsetOf(ended, t, kafka.FirstOffsetOf(t.partition))
		if err != nil {
			return err
		}
		t.start(first)
	}
	for g.room(ended, t) {
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

// room waits until there is room in the partition's buffer; false when the generation ended. A pause stops handlers
// and thereby fills the buffer. While it waits, it keeps the high watermark fresh.
func (g *generation) room(ended context.Context, t *tracker) bool {
	ticker := time.NewTicker(lagInterval)
	defer ticker.Stop()
	for t.room() == 0 {
		select {
		case <-ended.Done():
			return false
		case <-t.freed:
		case <-ticker.C:
			if high, err := g.c.offsetOf(ended, t, kafka.LastOffsetOf(t.partition)); err == nil { // else the next time
				t.heard(high)
			}
		}
	}
	return ended.Err() == nil
}

// record is a message with its place in the log.
type record struct {
	offset  int64 // in the partition that it was fetched from
	weight  int64 // what it counts against BufferBytes
	message outbox.Message
	place   place // of the original
}

func (c *Consumer) fetchOnce(ctx context.Context, t *tracker) ([]record, int64, error) {
	most := min(fetchBytes, max(minFetchBytes, t.room()))
	records, next, high, err := fetchRecords(ctx, c.client, TopicPartition{t.topic, t.partition}, t.fetched(), most)
	if err != nil {
		return nil, 0, err
	}
	t.heard(high)
	now := time.Now()
	for i := range records {
		r := &records[i]
		r.place = place{partition: t.partition, offset: r.offset}
		if t.retry != nil {
			r.place = t.retry.returned(&r.message, t.partition, r.offset, now)
		} else if r.message.Headers[HeaderRequeued] != "" {
			restoreCreated(&r.message)
		}
	}
	return records, next, nil
}

// fetchRecords reads a partition from an offset on, and answers the offset to go on with and the high watermark.
func fetchRecords(ctx context.Context, client *kafka.Client, tp TopicPartition, from, most int64,
) (out []record, next, high int64, err error) {
	res, err := client.Fetch(ctx, &kafka.FetchRequest{
		Topic: tp.Topic, Partition: tp.Partition, Offset: from, MinBytes: 1, MaxBytes: most, MaxWait: fetchWait,
		IsolationLevel: kafka.ReadCommitted,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, 0, 0, err
	}
	out, next, err = readRecords(res.Records, tp.Topic, tp.Partition, from)
	return out, next, res.HighWatermark, err
}

// offsetOf asks for the partition's first or last offset.
func (c *Consumer) offsetOf(ctx context.Context, t *tracker, which kafka.OffsetRequest) (int64, error) {
	res, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{t.topic: {which}},
	})
	if err != nil {
		return 0, err
	}
	for _, p := range res.Topics[t.topic] {
		if p.Partition == t.partition {
			return max(p.FirstOffset, p.LastOffset), p.Error // of which the other is -1
		}
	}
	return 0, fmt.Errorf("no answer for an offset of %s/%d", t.topic, t.partition)
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
				out = append(out, record{offset: rec.Offset, weight: weightOf(&m), message: m})
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

// weightOf is what a message counts against BufferBytes.
func weightOf(m *outbox.Message) int64 {
	n := messageOverhead + len(m.ID) + len(m.Key) + len(m.Body)
	for name, value := range m.Headers {
		n += len(name) + len(value)
	}
	return int64(n)
}
