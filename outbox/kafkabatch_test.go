package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// TestPartitionsAsJava holds the values of Kafka's own UtilsTest.testMurmur2.
func TestPartitionsAsJava(t *testing.T) {
	for key, hash := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		for _, n := range []int{1, 3, 7, 12, 1000} {
			partitions := make([]int, n)
			for i := range partitions {
				partitions[i] = i
			}
			want := int(hash&0x7fffffff) % n // Utils.toPositive(hash) % n
			if got := partitionOf(&Message{Key: key, ID: "other"}, partitions); got != want {
				t.Errorf("%q of %d partitions goes to %d, want %d", key, n, got, want)
			}
			if got := partitionOf(&Message{ID: key}, partitions); got != want {
				t.Errorf("without a key, id %q of %d partitions goes to %d, want %d", key, n, got, want)
			}
		}
	}
}

// decoded is a record as kafka-go reads it.
type decoded struct {
	offset     int64
	at         int64
	key, value []byte
	headers    map[string]string
}

func decodeBatch(t testing.TB, data []byte) (*protocol.RecordBatch, []decoded) {
	t.Helper()
	var rs protocol.RecordSet
	if _, err := rs.ReadFrom(bytes.NewBuffer(bytes.Clone(data))); err != nil {
		t.Fatal(err)
	}
	stream, ok := rs.Records.(*protocol.RecordStream)
	if !ok || len(stream.Records) != 1 {
		t.Fatalf("kafka-go read %T", rs.Records)
	}
	batch, ok := stream.Records[0].(*protocol.RecordBatch)
	if !ok {
		t.Fatalf("kafka-go read %T", stream.Records[0])
	}
	var out []decoded
	for {
		rec, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return batch, out
		}
		if err != nil {
			t.Fatal(err)
		}
		d := decoded{offset: rec.Offset, at: rec.Time.UnixMilli(), headers: map[string]string{}}
		for _, p := range []struct {
			from protocol.Bytes
			to   *[]byte
		}{{rec.Key, &d.key}, {rec.Value, &d.value}} {
			if p.from == nil {
				continue
			}
			if *p.to, err = protocol.ReadAll(p.from); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range rec.Headers {
			d.headers[h.Key] = string(h.Value)
		}
		out = append(out, d)
	}
}

func wantHeaders(m *Message, source string) map[string]string {
	want := map[string]string{
		"ce_source": source, "ce_specversion": "1.0", "ce_type": m.Topic,
		"ce_time": m.CreatedAt.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano),
	}
	if m.ID != "" {
		want["ce_id"] = m.ID
	}
	maps.Copy(want, m.Headers)
	if m.ID != "" {
		want[HeaderID] = m.ID
	}
	return want
}

func checkBatch(t testing.TB, msgs []Message, compression kafka.Compression) {
	t.Helper()
	b, err := encodeBatch(msgs, "shop", compression)
	if err != nil {
		t.Fatal(err)
	}
	b.stamp(kafkaSession{id: 7, epoch: 3}, 42)
	batch, got := decodeBatch(t, b.data) // which verifies lengths and checksum
	if batch.ProducerID != 7 || batch.ProducerEpoch != 3 || batch.BaseSequence != 42 {
		t.Errorf("producer %d, epoch %d, sequence %d", batch.ProducerID, batch.ProducerEpoch, batch.BaseSequence)
	}
	if len(got) != len(msgs) {
		t.Fatalf("%d records of %d messages", len(got), len(msgs))
	}
	for i, d := range got {
		m := &msgs[i]
		if d.offset != int64(i) || d.at != m.CreatedAt.UnixMilli() {
			t.Errorf("record %d: offset %d, time %d, want %d", i, d.offset, d.at, m.CreatedAt.UnixMilli())
		}
		if string(d.key) != m.Key || (d.key == nil) != (m.Key == "") {
			t.Errorf("record %d: key %q, want %q", i, d.key, m.Key)
		}
		if !bytes.Equal(d.value, m.Body) || (d.value == nil) != (m.Body == nil) {
			t.Errorf("record %d: value %q, want %q", i, d.value, m.Body)
		}
		if want := wantHeaders(m, "shop"); !maps.Equal(d.headers, want) {
			t.Errorf("record %d: headers %v, want %v", i, d.headers, want)
		}
	}
}

func TestRecordBatchAsKafkaGoReadsIt(t *testing.T) {
	at := time.Date(2026, 11, 23, 2, 3, 4, 567_000_000, time.UTC)
	msgs := []Message{
		{ID: "1", Topic: "orders", Key: "alice", Body: []byte(`{"cents":1}`), CreatedAt: at},
		{ID: "2", Topic: "orders", Body: []byte{}, CreatedAt: at.Add(-time.Hour)}, // older than the first
		{ID: "3", Topic: "orders", Key: "bob", CreatedAt: at.Add(time.Minute), Headers: map[string]string{
			"traceparent": "00-1", "binary": "\x00\xff", "ce_type": "own.type", HeaderID: "not this",
		}},
		{Topic: "orders", Key: strings.Repeat("k", 300), Body: bytes.Repeat([]byte("body "), 40_000), CreatedAt: at},
	}
	for _, c := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		t.Run(c.String(), func(t *testing.T) { checkBatch(t, msgs, c) })
	}
}

func FuzzRecordBatch(f *testing.F) {
	f.Add("id", "key", []byte("body"), "name", "value", int64(1), uint8(3), uint8(0))
	f.Add("", "", []byte(nil), "", "", int64(-5), uint8(1), uint8(4))
	f.Fuzz(func(t *testing.T, id, key string, body []byte, name, value string, at int64, n, compression uint8) {
		at %= 1 << 50
		if at == 0 || strings.HasPrefix(name, "ce_") || name == HeaderID {
			return
		}
		msgs := make([]Message, 1+n%16)
		for i := range msgs {
			msgs[i] = Message{
				ID: id, Topic: "t", Key: key, Body: body[:len(body)*i/len(msgs)],
				CreatedAt: time.UnixMilli(at + int64(i)*at/3), Headers: map[string]string{name: value, fmt.Sprint(i): key},
			}
		}
		checkBatch(t, msgs, kafka.Compression(compression%5))
	})
}
