package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

const partitions = 4

// openLog makes a topic and reads it until close.
func openLog(ctx context.Context, brokers []string, topic string) (*log, error) {
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 10 * time.Second}
	res, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	if err == nil {
		err = res.Errors[topic]
	}
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	l := &log{byKey: map[string][]int{}, grew: time.Now()}
	reading, stop := context.WithCancel(ctx)
	var g errgroup.Group
	for p := range partitions {
		g.Go(func() error { return l.read(reading, brokers, topic, p) })
	}
	l.close = func() {
		stop()
		_, err := client.DeleteTopics(context.WithoutCancel(ctx), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
		if err := errors.Join(err, g.Wait()); err != nil {
			fmt.Fprintln(os.Stderr, "watermill: the topic:", err)
		}
	}
	return l, nil
}

func (l *log) read(ctx context.Context, brokers []string, topic string, partition int) error {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, Topic: topic, Partition: partition, MaxWait: 100 * time.Millisecond,
	})
	for {
		m, err := r.ReadMessage(ctx)
		if ctx.Err() != nil {
			return r.Close()
		}
		if err != nil {
			return errors.Join(err, r.Close())
		}
		n, err := strconv.Atoi(string(m.Value))
		if err != nil {
			return errors.Join(fmt.Errorf("record %q: %w", m.Value, err), r.Close())
		}
		l.mu.Lock()
		l.byKey[string(m.Key)] = append(l.byKey[string(m.Key)], n)
		l.grew = time.Now()
		l.mu.Unlock()
	}
}

// settle waits until the log has not grown for a while.
func (l *log) settle(ctx context.Context, quiet time.Duration) error {
	for began := time.Now(); ; {
		l.mu.Lock()
		wait := quiet - time.Since(maxTime(l.grew, began))
		l.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
