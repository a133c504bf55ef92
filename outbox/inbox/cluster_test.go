package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// cluster is three brokers of Apache Kafka between a publisher and a consumer, both busy.
type cluster struct {
	*bench
	nodes     map[string]*servicestest.Server // by address
	topic     string
	published atomic.Int64
	con       *Consumer
}

const clusterPartitions, clusterKeys = 3, 23

// TestLeadersMove: whatever becomes of the brokers while messages are on their way, each is in the log once, in the order
// of its key, and handled once. kill and stop take the leader of a partition, which may be the
// controller and the group's coordinator too; an outage takes all brokers; a move leaves them alone.
func TestLeadersMove(t *testing.T) {
	t.Parallel() // with the others that mostly wait
	c := startCluster(t)
	load, end := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return c.load(load) })
	t.Cleanup(func() { end(); _ = g.Wait() }) // its error is seen below, unless the test has failed before
	c.progress(t, "at first")
	type harm struct {
		name string
		do   func(t *testing.T)
	}
	harms := []harm{
		{"move", c.move},
		{"kill", func(t *testing.T) { c.withoutLeader(t, (*servicestest.Server).Kill) }},
		{"outage", c.outage}, // which brings back the one that was killed
	}
	if long {
		harms = append(harms, harm{"kill and start", func(t *testing.T) { c.withoutLeader(t, (*servicestest.Server).Kill).Start(); c.whole(t) }},
			harm{"stop", func(t *testing.T) { c.withoutLeader(t, (*servicestest.Server).Stop) }}, harm{"outage", c.outage})
	}
	for _, harm := range harms {
		began := time.Now()
		harm.do(t)
		c.progress(t, "after "+harm.name)
		t.Logf("%s: %v, %d published, %+v", harm.name, time.Since(began).Round(time.Millisecond), c.published.Load(), c.con.Stats())
	}
	end()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	n := c.published.Load()
	eventually(t, "all handled", func() bool { return c.con.Stats().Handled >= uint64(n) })
	c.check(t, int(n))
	if in := c.logged(t); in != n {
		t.Errorf("%d messages in the log, %d were published: a retry was not recognized", in, n)
	}
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{bench: servers(t), nodes: map[string]*servicestest.Server{}, topic: servicestest.Name(t)}
	var addrs []string
	for _, k := range servicestest.StartKafkaCluster(t, 3, quickFencing...) {
		c.nodes[k.Addr] = k
		addrs = append(addrs, k.Addr)
	}
	c.connect(t, addrs...)
	servicestest.CreateTopic(t, addrs, kafka.TopicConfig{
		Topic: c.topic, NumPartitions: clusterPartitions, ReplicationFactor: 3,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "min.insync.replicas", ConfigValue: "2"}},
	})
	c.con = c.consumer(t, ConsumerConfig{}, insertHandled, c.topic)
	start(t, c.con)
	return c
}

// load publishes until ctx ends, as a relay does: what failed again. It stays a little ahead of the consumer.
func (c *cluster) load(ctx context.Context) error {
	const n, ahead = 10, 200
	for pace := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-pace.C { // brokers that start need the CPU
		from := int(c.published.Load())
		if from > int(c.con.Stats().Handled)+ahead {
			continue
		}
		msgs := numbered(c.topic, from, n, clusterKeys)
		for deadline := time.Now().Add(2 * time.Minute); len(msgs) > 0; {
			errs := c.pub.Publish(context.WithoutCancel(ctx), msgs)
			if errors.Join(errs...) != nil && time.Now().After(deadline) {
				return errors.Join(errs...)
			}
			msgs = failed(msgs, errs)
		}
		c.published.Add(n)
	}
	return nil
}

// failed picks the messages that have to be published again.
func failed(msgs []outbox.Message, errs []error) (again []outbox.Message) {
	for i, err := range errs {
		if err != nil {
			again = append(again, msgs[i])
		}
	}
	return again
}

// progress waits until some messages have come through that are new.
func (c *cluster) progress(t *testing.T, when string) {
	t.Helper()
	before := c.published.Load()
	n := int64(scaled(60, 200))
	eventually(t, "published "+when, func() bool { return c.published.Load() >= before+n || t.Failed() })
	eventually(t, "handled "+when, func() bool { return c.con.Stats().Handled >= uint64(before+n) || t.Failed() })
}

// withoutLeader ends the leader of partition 0, and waits until messages come through another one.
func (c *cluster) withoutLeader(t *testing.T, end func(*servicestest.Server)) *servicestest.Server {
	t.Helper()
	leader := c.leaders(t)[0]
	end(c.nodes[leader])
	eventually(t, "another leader", func() bool { l := c.leaders(t)[0]; return l != "" && l != leader })
	c.progress(t, "without "+leader)
	return c.nodes[leader]
}

// outage kills all brokers and starts them again.
func (c *cluster) outage(t *testing.T) {
	t.Helper()
	for _, k := range c.nodes {
		k.Kill()
	}
	var g errgroup.Group
	for _, k := range c.nodes {
		g.Go(func() error { k.Start(); return nil })
	}
	_ = g.Wait() // Start fails the test by itself
	c.whole(t)
}

// move has the next broker lead each partition, by its place among the replicas.
func (c *cluster) move(t *testing.T) {
	t.Helper()
	before := c.leaders(t)
	c.client(t, func(k *kafka.Client) error {
		req := &kafka.AlterPartitionReassignmentsRequest{Topic: c.topic, Timeout: 10 * time.Second}
		elect := &kafka.ElectLeadersRequest{Topic: c.topic, Timeout: 10 * time.Second}
		for _, p := range c.partitions(t) {
			var ids []int
			for _, r := range p.Replicas {
				ids = append(ids, r.ID)
			}
			at := (slices.Index(ids, p.Leader.ID) + 1) % len(ids)
			req.Assignments = append(req.Assignments, kafka.AlterPartitionReassignmentsRequestAssignment{
				PartitionID: p.ID, BrokerIDs: append(slices.Clone(ids[at:]), ids[:at]...),
			})
			elect.Partitions = append(elect.Partitions, p.ID)
		}
		res, err := k.AlterPartitionReassignments(t.Context(), req)
		if err == nil {
			err = res.Error
		}
		if err != nil {
			return fmt.Errorf("reassign: %w", err)
		}
		moved, err := k.ElectLeaders(t.Context(), elect)
		if err == nil {
			err = moved.Error
		}
		return err
	})
	eventually(t, "all have moved", func() bool {
		for p, l := range c.leaders(t) {
			if l == "" || l == before[p] {
				return false
			}
		}
		return true
	})
}

// whole waits until every replica is in sync.
func (c *cluster) whole(t *testing.T) {
	t.Helper()
	eventually(t, "all in sync", func() bool {
		return !slices.ContainsFunc(c.partitions(t), func(p kafka.Partition) bool { return len(p.Isr) < 3 || p.Leader.Host == "" })
	})
}

// leaders are the addresses of the partitions' leaders, "" for none.
func (c *cluster) leaders(t *testing.T) []string {
	t.Helper()
	out := make([]string, clusterPartitions)
	for _, p := range c.partitions(t) {
		if p.Leader.Host != "" {
			out[p.ID] = fmt.Sprintf("%s:%d", p.Leader.Host, p.Leader.Port)
		}
	}
	return out
}

// partitions asks anew; none while no broker answers.
func (c *cluster) partitions(t *testing.T) (parts []kafka.Partition) {
	t.Helper()
	c.client(t, func(k *kafka.Client) error {
		if meta, err := k.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{c.topic}}); err == nil {
			parts = meta.Topics[0].Partitions
		}
		return nil
	})
	return parts
}

// logged is how many messages are in the log.
func (c *cluster) logged(t *testing.T) (n int64) {
	t.Helper()
	c.client(t, func(k *kafka.Client) error {
		req := &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{}}
		for p := range clusterPartitions {
			req.Topics[c.topic] = append(req.Topics[c.topic], kafka.LastOffsetOf(p))
		}
		res, err := k.ListOffsets(t.Context(), req)
		if err != nil {
			return err
		}
		for _, p := range res.Topics[c.topic] {
			n += p.LastOffset
		}
		return nil
	})
	return n
}
