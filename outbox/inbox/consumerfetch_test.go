package inbox

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/amends-dev/amends/outbox"
)

func TestForeignMessagesAndControlRecords(t *testing.T) {
	onBenches(t, testForeignMessagesAndControlRecords)
}

func testForeignMessagesAndControlRecords(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	w := &kafka.Writer{
		Addr: kafka.TCP(b.brokers[0]), Topic: topic, BatchTimeout: time.Millisecond, RequiredAcks: kafka.RequireAll,
		Transport: &kafka.Transport{},
	}
	defer w.Close()
	for range 2 {
		if err := w.WriteMessages(t.Context(), kafka.Message{Key: []byte("k"), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	ids := make(chan string, 10)
	c := b.consumer(t, ConsumerConfig{}, func(_ context.Context, _ *sql.Tx, m outbox.Message) error {
		ids <- m.ID
		return nil
	}, topic)
	start(t, c)
	for _, want := range []string{topic + "/0/0", topic + "/0/1"} {
		if got := <-ids; got != want {
			t.Errorf("id %q, want %q", got, want)
		}
	}

	// What a fetch of transactional data holds: records, a commit marker, and nothing else.
	data := func(offset int64, values ...string) protocol.RecordReader {
		var recs []protocol.Record
		for i, v := range values {
			recs = append(recs, protocol.Record{Offset: offset + int64(i), Value: protocol.NewBytes([]byte(v))})
		}
		return &protocol.RecordBatch{BaseOffset: offset, Records: protocol.NewRecordReader(recs...)}
	}
	marker := func(offset int64) protocol.RecordReader {
		b := protocol.NewControlBatch(protocol.ControlRecord{Offset: offset, Type: 1})
		b.BaseOffset = offset
		return b
	}
	for name, c := range map[string]struct {
		batches []protocol.RecordReader
		from    int64
		want    string
		next    int64
	}{
		"between":        {[]protocol.RecordReader{data(5, "a", "b"), marker(7), data(8, "c")}, 5, "abc", 9},
		"only a marker":  {[]protocol.RecordReader{marker(7)}, 7, "", 8},
		"begins earlier": {[]protocol.RecordReader{data(5, "a", "b", "c")}, 6, "bc", 8},
		"compacted away": {[]protocol.RecordReader{data(5)}, 5, "", 6},
		"nothing":        {nil, 5, "", 5},
	} {
		got, next, err := readRecords(&protocol.RecordStream{Records: c.batches}, "t", 0, c.from)
		text := ""
		for _, r := range got {
			text += string(r.message.Body)
		}
		if err != nil || text != c.want || len(got) != len(c.want) || next != c.next {
			t.Errorf("%s: %q up to %d (%v), want %q up to %d", name, text, next, err, c.want, c.next)
		}
	}
}
