package check

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// idHeader is where the publisher puts a message's id.
const idHeader = "amends-id"

const kafkaTime = 20 * time.Second

// readLog reads every partition of the topic from end to end, and counts the
// dead letters of its readers.
func (b *books) readLog(ctx context.Context, brokers []string, topic string) error {
	dead := topic + ".dead"
	spans, err := spansOf(ctx, brokers, topic, dead)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	for _, p := range spans[topic] {
		if err := b.readPartition(ctx, brokers, topic, p); err != nil {
			return err
		}
	}
	for _, p := range spans[dead] {
		b.dead += p.LastOffset - p.FirstOffset
	}
	return nil
}

func (b *books) readPartition(ctx context.Context, brokers []string, topic string, p kafka.PartitionOffsets) error {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, Topic: topic, Partition: p.Partition, MaxWait: 100 * time.Millisecond,
	})
	defer r.Close() // nothing was written
	if err := r.SetOffset(p.FirstOffset); err != nil {
		return err
	}
	for next := p.FirstOffset; next < p.LastOffset; {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return fmt.Errorf("kafka: read %s/%d at %d: %w", topic, p.Partition, next, err)
		}
		next = m.Offset + 1
		var says struct {
			List int   `json:"list"`
			N    int64 `json:"n"`
		}
		if err := json.Unmarshal(m.Value, &says); err != nil {
			return fmt.Errorf("kafka: %s/%d at %d: %w", topic, p.Partition, m.Offset, err)
		}
		rec := record{list: says.List, n: says.N, key: string(m.Key)}
		for _, h := range m.Headers {
			if h.Key == idHeader {
				rec.msg = string(h.Value)
			}
		}
		b.log = append(b.log, rec)
	}
	return nil
}

// spansOf returns first and last offset of every partition of the topics that
// exist.
func spansOf(ctx context.Context, brokers []string, topics ...string) (map[string][]kafka.PartitionOffsets, error) {
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: kafkaTime, Transport: tr}
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
