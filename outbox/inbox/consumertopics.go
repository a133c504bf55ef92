package inbox

import (
	"context"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// awaitTopics waits until all topics exist: kafka-go would join the group over and over. False when ctx ended.
func (c *Consumer) awaitTopics(ctx context.Context) bool {
	for pause := (pacer{c.cfg.Backoff, c.cfg.MaxBackoff}); ; {
		missing, create, err := c.missingTopics(ctx)
		if err == nil && len(missing) == 0 {
			return true
		}
		if err == nil && len(create) > 0 {
			err = c.createTopics(ctx, create)
		}
		if ctx.Err() == nil {
			c.cfg.Logger.Info("Kafka: topics are missing", "group", c.group, "topics", missing, "error", err)
		}
		if !pause.wait(ctx) {
			return false
		}
		c.transport.CloseIdleConnections() // and with them the cached list of topics
	}
}

func (c *Consumer) createTopics(ctx context.Context, topics []kafka.TopicConfig) error {
	res, err := c.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return err
	}
	for _, t := range topics {
		if err := res.Errors[t.Topic]; err != nil {
			return err // another member may have made it: the next look tells
		}
	}
	return nil
}

// missingTopics names the topics that do not exist, and tells how to make those that this consumer may make: a retry
// topic once the topic is there whose partitions it gets.
func (c *Consumer) missingTopics(ctx context.Context) (missing []string, create []kafka.TopicConfig, err error) {
	res, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: c.allTopics()})
	if err != nil {
		return nil, nil, err
	}
	partitions := map[string]int{}
	for _, t := range res.Topics {
		if t.Error == nil {
			partitions[t.Name] = len(t.Partitions)
		}
	}
	lacks := func(topic string, n int) {
		missing = append(missing, topic)
		if n != 0 {
			create = append(create, kafka.TopicConfig{Topic: topic, NumPartitions: n, ReplicationFactor: -1})
		}
	}
	for _, t := range c.topics {
		n := partitions[t]
		if n == 0 && c.cfg.CreateTopics {
			lacks(t, -1)
		} else if n == 0 {
			lacks(t, 0)
		}
		for _, name := range c.retries.of(t) {
			if partitions[name] == 0 {
				lacks(name, n)
			}
		}
	}
	return missing, create, nil
}

// allTopics are those that the consumer reads.
func (c *Consumer) allTopics() []string { return slices.Concat(c.topics, c.retries.names()) }

// pacer doubles a pause up to most.
type pacer struct{ pause, most time.Duration }

// wait sleeps for the next pause; false when ctx ended.
func (p *pacer) wait(ctx context.Context) bool {
	t := time.NewTimer(p.pause)
	defer t.Stop()
	p.pause = min(2*p.pause, p.most)
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
