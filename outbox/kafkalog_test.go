package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// readLog reads all partitions of a topic to their ends.
func readLog(t testing.TB, addr, topic string) [][]decoded {
	t.Helper()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(addr), Transport: tr, Timeout: 10 * time.Second}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	meta, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil || meta.Topics[0].Error != nil {
		t.Fatal(err, meta.Topics[0].Error)
	}
	out := make([][]decoded, len(meta.Topics[0].Partitions))
	for part := range out {
		for next := int64(0); ; {
			res, err := c.Fetch(ctx, &kafka.FetchRequest{
				Topic: topic, Partition: part, Offset: next, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 10 * time.Millisecond,
			})
			var refused kafka.Error
			if err == nil && errors.As(res.Error, &refused) && refused.Temporary() && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond) // a topic's leaders answer a little after it was made
				continue
			}
			if err = errors.Join(err); err != nil || res.Error != nil {
				t.Fatal(err, res)
			}
			for {
				rec, err := res.Records.ReadRecord()
				if errors.Is(err, io.EOF) {
					break
				}
				d := decoded{offset: rec.Offset, headers: map[string]string{}}
				d.key, _ = kafka.ReadAll(rec.Key)
				d.value, _ = kafka.ReadAll(rec.Value)
				for _, h := range rec.Headers {
					d.headers[h.Key] = string(h.Value)
				}
				if rec.Offset >= next {
					out[part] = append(out[part], d)
					next = rec.Offset + 1
				}
			}
			if next >= res.HighWatermark {
				break
			}
		}
	}
	return out
}

// checkSeries wants series(…, 0, n, keys) in the log: each message once, each key in order and in one partition.
func checkSeries(t testing.TB, addr, topic string, n, keys int) {
	t.Helper()
	next := map[string]int{}
	total := 0
	for part, records := range readLog(t, addr, topic) {
		for _, r := range records {
			total++
			if want := fmt.Sprint(next[string(r.key)]); string(r.value) != want {
				t.Fatalf("%s/%d offset %d: key %s has %s, want %s", topic, part, r.offset, r.key, r.value, want)
			}
			next[string(r.key)]++
		}
	}
	if total != n {
		t.Fatalf("%d messages in the log, want %d", total, n)
	}
}

func deleteTopic(t testing.TB, addr, topic string) {
	t.Helper()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(addr), Transport: tr, Timeout: 10 * time.Second}
	if _, err := c.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}}); err != nil {
		t.Logf("topic %q stays: %v", topic, err)
	}
}
