package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// kafkaTopic is a topic's layout: the leader of each partition by its index, -1 for none.
type kafkaTopic struct {
	leaders    []int32
	partitions []int // 0, 1, 2, …: what kafka-go's partitioner wants
	err        error
}

// layout answers from kafka-go's cache, which it renews every few seconds by itself.
func (p *KafkaPublisher) layout(ctx context.Context, topics []string) (map[string]kafkaTopic, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.RequestTimeout)
	defer cancel()
	res, err := p.transport.RoundTrip(ctx, p.addr, &metadata.Request{TopicNames: topics})
	if err != nil {
		return nil, fmt.Errorf("ask %s for the layout of topics: %w", p.addr, err)
	}
	meta, ok := res.(*metadata.Response)
	if !ok {
		return nil, fmt.Errorf("ask %s for the layout of topics: unexpected answer %T", p.addr, res)
	}
	out := make(map[string]kafkaTopic, len(topics))
	for _, t := range meta.Topics {
		kt := kafkaTopic{leaders: make([]int32, len(t.Partitions)), partitions: make([]int, len(t.Partitions))}
		if t.ErrorCode != 0 {
			kt.err = kafka.Error(t.ErrorCode)
		} else if len(t.Partitions) == 0 {
			kt.err = kafka.LeaderNotAvailable // being created
		}
		for i, part := range t.Partitions {
			kt.partitions[i] = i
			kt.leaders[i] = part.LeaderID // the transport sorts them by index
		}
		out[t.Name] = kt
	}
	return out, nil
}

// refresh drops the cached layout, and with it idle connections that may be stale; requests under way go on. It does
// so at most every 100 ms.
func (p *KafkaPublisher) refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.refreshed) > 100*time.Millisecond {
		p.refreshed = now
		p.transport.CloseIdleConnections()
	}
}

// topics finds the layout of all topics, makes missing ones if it may, and goes on trying until ctx ends. Topics that
// cannot be used have an error in the result; the error of the call itself concerns all of them.
func (p *KafkaPublisher) topics(ctx context.Context, names []string) (map[string]kafkaTopic, error) {
	var b backoff
	for {
		found, err := p.layout(ctx, names)
		missing := missingTopics(found)
		if err == nil && len(missing) == 0 && !coming(found) {
			return found, nil
		}
		if err == nil && len(missing) > 0 && b.tries > 0 { // not before the cache was renewed
			if !p.cfg.CreateTopics {
				return p.explainMissing(found, missing), nil
			}
			if err = p.createTopics(ctx, missing, found); err == nil && len(missingTopics(found)) == 0 {
				return found, nil // none of them can be made
			}
		}
		p.refresh()
		if !b.wait(ctx) {
			if err == nil {
				return found, nil
			}
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func missingTopics(found map[string]kafkaTopic) []string {
	var out []string
	for name, t := range found {
		if errors.Is(t.err, kafka.UnknownTopicOrPartition) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// coming tells whether some topic exists but cannot be used yet.
func coming(found map[string]kafkaTopic) bool {
	for _, t := range found {
		if errors.Is(t.err, kafka.LeaderNotAvailable) {
			return true
		}
	}
	return false
}

func (p *KafkaPublisher) explainMissing(found map[string]kafkaTopic, missing []string) map[string]kafkaTopic {
	for _, name := range missing {
		found[name] = kafkaTopic{err: fmt.Errorf("topic %q does not exist on %s: create it, "+
			"or set KafkaConfig.CreateTopics: %w", name, p.addr, kafka.UnknownTopicOrPartition)}
	}
	return found
}

// createTopics makes topics. One that the cluster refuses gets its error into found.
func (p *KafkaPublisher) createTopics(ctx context.Context, names []string, found map[string]kafkaTopic) error {
	configs := make([]kafka.TopicConfig, len(names))
	for i, name := range names {
		configs[i] = kafka.TopicConfig{Topic: name, NumPartitions: p.cfg.Partitions, ReplicationFactor: p.cfg.ReplicationFactor}
		if p.cfg.Partitions == 0 {
			configs[i].NumPartitions = -1
		}
		if p.cfg.ReplicationFactor == 0 {
			configs[i].ReplicationFactor = -1
		}
	}
	res, err := p.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: configs})
	if err != nil {
		return fmt.Errorf("create topics %q: %w", names, err)
	}
	for name, err := range res.Errors {
		switch {
		case err == nil:
			p.cfg.Logger.Info("Kafka topic created", "topic", name)
		case errors.Is(err, kafka.TopicAlreadyExists), errors.Is(err, kafka.NotController): // look again
		case errors.Is(err, kafka.InvalidTopic):
			found[name] = kafkaTopic{err: Poison(fmt.Errorf("create topic %q: %w", name, err))}
		default:
			found[name] = kafkaTopic{err: fmt.Errorf("create topic %q: %w", name, err)}
		}
	}
	return nil
}

// backoff paces retries: 10 ms doubling to 1 s, with jitter.
type backoff struct{ tries int }

// wait sleeps for the next pause; false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
