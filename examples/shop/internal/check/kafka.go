package check

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// record is a message in Kafka.
type record struct{ topic, id, key string }

// idHeader is where the publisher puts a message's id.
const idHeader = "amends-id"

// loadLog reads every partition of the shop's topics from end to end.
func (b *books) loadLog(ctx context.Context, s Shop) error {
	client := &kafka.Client{Addr: kafka.TCP(s.Kafka...), Timeout: 10 * time.Second}
	spans, err := offsets(ctx, client, s.Topics.all())
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for topic, partitions := range spans {
		for _, p := range partitions {
			g.Go(func() error {
				records, err := readPartition(ctx, s.Kafka, topic, p)
				mu.Lock()
				defer mu.Unlock()
				b.log = append(b.log, records...)
				return err
			})
		}
	}
	return g.Wait()
}

func readPartition(ctx context.Context, brokers []string, topic string, p kafka.PartitionOffsets) ([]record, error) {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, Topic: topic, Partition: p.Partition, MaxWait: 100 * time.Millisecond,
	})
	defer r.Close() // nothing was written
	if err := r.SetOffset(p.FirstOffset); err != nil {
		return nil, err
	}
	var records []record
	for next := p.FirstOffset; next < p.LastOffset; {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return nil, fmt.Errorf("kafka: read %s/%d at %d: %w", topic, p.Partition, next, err)
		}
		next = m.Offset + 1
		rec := record{topic: topic, key: string(m.Key)}
		for _, h := range m.Headers {
			if h.Key == idHeader {
				rec.id = string(h.Value)
			}
		}
		records = append(records, rec)
	}
	return records, nil
}

// offsets returns first and last offset of every partition of the topics that
// exist.
func offsets(ctx context.Context, client *kafka.Client, topics []string) (map[string][]kafka.PartitionOffsets, error) {
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return nil, err
	}
	ask := map[string][]kafka.OffsetRequest{}
	for _, t := range meta.Topics {
		for _, p := range t.Partitions {
			ask[t.Name] = append(ask[t.Name], kafka.FirstOffsetOf(p.ID), kafka.LastOffsetOf(p.ID))
		}
	}
	resp, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: ask})
	if err != nil {
		return nil, err
	}
	for topic, partitions := range resp.Topics {
		for _, p := range partitions {
			if p.Error != nil {
				return nil, fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, p.Error)
			}
		}
	}
	return resp.Topics, nil
}

// Lag returns how many records of the shop's topics a consumer group has not
// committed yet.
func Lag(ctx context.Context, s Shop, group string) (int64, error) {
	client := &kafka.Client{Addr: kafka.TCP(s.Kafka...), Timeout: 10 * time.Second}
	spans, err := offsets(ctx, client, s.Topics.all())
	if err != nil {
		return 0, err
	}
	ask := map[string][]int{}
	last := map[string]map[int]int64{}
	for topic, partitions := range spans {
		last[topic] = map[int]int64{}
		for _, p := range partitions {
			ask[topic] = append(ask[topic], p.Partition)
			last[topic][p.Partition] = p.LastOffset
		}
	}
	resp, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: ask})
	if err != nil {
		return 0, err
	}
	if resp.Error != nil {
		return 0, resp.Error
	}
	var lag int64
	for topic, partitions := range resp.Topics {
		for _, p := range partitions {
			lag += last[topic][p.Partition] - max(0, p.CommittedOffset)
		}
	}
	return lag, nil
}
