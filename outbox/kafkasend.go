package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"golang.org/x/sync/errgroup"
)

// errNoLeader is the state of a partition between two leaders.
var errNoLeader = errors.New("the partition has no leader now")

// round sends one batch of each lane, in one request per leader, and settles each with its answer.
func (c *kafkaCall) round(ctx context.Context, lanes []*kafkaLane) {
	session, err := c.p.producer.session(ctx)
	if err != nil {
		for _, lane := range lanes {
			c.again(lane, err)
		}
		return
	}
	byLeader := map[int32][]*kafkaLane{}
	for _, lane := range lanes {
		leader := int32(-1)
		if leaders := c.topics[lane.part.topic].leaders; lane.part.index < len(leaders) {
			leader = leaders[lane.part.index]
		}
		if leader < 0 {
			c.again(lane, errNoLeader)
		} else if err := c.prepare(ctx, lane, session); err != nil {
			c.again(lane, err)
		} else {
			byLeader[leader] = append(byLeader[leader], lane)
		}
	}
	var wg errgroup.Group
	for _, group := range byLeader {
		wg.Go(func() error {
			answers := c.send(ctx, group)
			for i, lane := range group { // no two groups share a lane
				c.settle(ctx, lane, answers[i])
			}
			return nil
		})
	}
	_ = wg.Wait() // settle keeps the errors
}

// prepare sees to it that the lane's partition has a pending batch. One of an earlier call is sent again as it is when
// this call carries all of its messages; otherwise it is given up, and a new epoch keeps it from arriving late.
func (c *kafkaCall) prepare(ctx context.Context, lane *kafkaLane, session kafkaSession) error {
	part := lane.part
	if part.pending != nil && !lane.own && !c.carries(lane, part.pending) {
		var err error
		session, err = c.p.producer.bump(ctx, part.pending.session, "a batch of unknown fate was given up")
		if err != nil {
			return err
		}
		part.settled()
	}
	if part.pending != nil {
		return nil
	}
	var msgs []Message
	size := 0
	for _, i := range lane.todo {
		size += messageSize(&c.msgs[i])
		if len(msgs) > 0 && (len(msgs) == lane.limit || size > c.p.cfg.BatchBytes) {
			break
		}
		msgs = append(msgs, c.msgs[i])
	}
	b, err := encodeBatch(msgs, c.p.cfg.Source, c.p.cfg.Compression)
	if err != nil {
		return err
	}
	part.begin(b, session)
	lane.own = true
	return nil
}

// carries tells whether each message of b is still to do in lane. Messages without an ID are never known again.
func (c *kafkaCall) carries(lane *kafkaLane, b *kafkaBatch) bool {
	if len(b.ids) > len(lane.todo) {
		return false
	}
	at := 0
	for _, id := range b.ids {
		for at < len(lane.todo) && c.msgs[lane.todo[at]].ID != id {
			at++
		}
		if id == "" || at == len(lane.todo) {
			return false
		}
		at++
	}
	return true
}

// send produces the pending batches of lanes that have one leader, and answers one error for each.
func (c *kafkaCall) send(ctx context.Context, lanes []*kafkaLane) []error {
	timeout := c.p.cfg.RequestTimeout
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := &rawproduce.Request{Acks: int16(kafka.RequireAll), Timeout: int32(timeout.Milliseconds())}
	for _, lane := range lanes { // sorted by topic
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != lane.part.topic {
			req.Topics = append(req.Topics, rawproduce.RequestTopic{Topic: lane.part.topic})
		}
		t := &req.Topics[len(req.Topics)-1]
		part := rawproduce.RequestPartition{Partition: int32(lane.part.index)}
		part.RecordSet.Reader = bytes.NewReader(lane.part.pending.data)
		t.Partitions = append(t.Partitions, part)
	}
	errs := make([]error, len(lanes))
	m, err := c.p.transport.RoundTrip(ctx, c.p.addr, req)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	answers := map[topicPartition]error{}
	res, ok := m.(*produce.Response)
	if !ok {
		res = &produce.Response{} // never: the transport pairs them
	}
	for _, t := range res.Topics {
		for _, part := range t.Partitions {
			answers[topicPartition{t.Topic, int(part.Partition)}] = produceError(part)
		}
	}
	for i, lane := range lanes {
		if errs[i], ok = answers[lane.part.topicPartition]; !ok {
			errs[i] = errors.New("the broker answered nothing for the partition")
		}
	}
	return errs
}

func produceError(part produce.ResponsePartition) error {
	if part.ErrorCode == 0 {
		return nil
	}
	err := error(kafka.Error(part.ErrorCode))
	if part.ErrorMessage != "" {
		err = fmt.Errorf("%w (%s)", err, part.ErrorMessage)
	}
	return err
}

// settle acts on the answer for a lane's pending batch.
func (c *kafkaCall) settle(ctx context.Context, lane *kafkaLane, err error) {
	var code kafka.Error
	errors.As(err, &code) // 0 for other errors
	switch {
	case err == nil, code == kafka.DuplicateSequenceNumber: // it is in the log, now or already
		c.acked(lane)
	case code == kafka.MessageSizeTooLarge, code == kafka.RecordListTooLarge,
		code == kafka.InvalidRecord, code == kafka.InvalidTimestamp:
		c.refused(lane, err)
	case code == kafka.OutOfOrderSequenceNumber, code == kafka.UnknownProducerId:
		c.restamp(ctx, lane, err, c.p.producer.bump)
	case code == kafka.InvalidProducerEpoch, code == kafka.InvalidProducerIDMapping, code == kafka.ProducerFenced:
		c.restamp(ctx, lane, err, c.p.producer.replace)
	case hopeless(code):
		c.fail(lane, err)
	default:
		c.again(lane, err)
	}
}

// hopeless are answers that another attempt in the same call would not change.
func hopeless(code kafka.Error) bool {
	switch code {
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.InvalidTopic,
		kafka.InvalidRequiredAcks, kafka.UnsupportedVersion, kafka.UnsupportedForMessageFormat,
		kafka.UnsupportedCompressionType, kafka.PolicyViolation, kafka.SASLAuthenticationFailed:
		return true
	}
	return false
}

// acked takes the messages of the pending batch off the lane.
func (c *kafkaCall) acked(lane *kafkaLane) {
	if since := lane.part.failing; !since.IsZero() {
		lane.part.failing = time.Time{}
		c.p.cfg.Logger.Info("Kafka: batches are acknowledged again", "topic", lane.part.topic,
			"partition", lane.part.index, "after", time.Since(since).Round(time.Millisecond))
	}
	ids := lane.part.pending.ids
	rest := make([]int, 0, len(lane.todo)-len(ids))
	for _, i := range lane.todo {
		if len(ids) > 0 && c.msgs[i].ID == ids[0] {
			ids = ids[1:]
			continue
		}
		rest = append(rest, i)
	}
	lane.part.acked()
	lane.todo, lane.retry, lane.last = rest, backoff{}, nil
	if len(rest) == 0 {
		lane.end()
	}
}

// clockDoubt is how far clocks may be apart. A message whose time the broker refuses is poison when it is older: it will
// never be younger. Otherwise it is tried again, until the time has come or a clock was set right.
const clockDoubt = time.Hour

// refused is for a batch that the broker will not take as it is: it looks for the message that is to blame by halving,
// and declares it poison. Nothing of the batch was written, so its sequence numbers are free.
func (c *kafkaCall) refused(lane *kafkaLane, err error) {
	b := lane.part.pending
	lane.part.settled()
	if len(b.ids) > 1 {
		lane.limit = len(b.ids) / 2
		return
	}
	// The blame is the first message's, except when a batch of an earlier call was sent again.
	if at := slices.IndexFunc(lane.todo, func(i int) bool { return c.msgs[i].ID == b.ids[0] }); at > 0 {
		lane.todo[0], lane.todo[at] = lane.todo[at], lane.todo[0]
	}
	lane.last = nil
	if errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge) {
		err = fmt.Errorf("its record of %d bytes is over the broker's limit for topic %q: raise max.message.bytes there, "+
			"or send a reference instead of the body: %w", len(b.data), lane.part.topic, err)
	}
	if at := time.UnixMilli(recordTime(&c.msgs[lane.todo[0]])); errors.Is(err, kafka.InvalidTimestamp) {
		err = fmt.Errorf("its time %v is outside of message.timestamp.before.max.ms and .after.max.ms of topic %q, by the "+
			"broker's clock: %w", at.UTC(), lane.part.topic, err)
		if time.Since(at) < clockDoubt {
			c.fail(lane, err)
			return
		}
	}
	c.fail(lane, Poison(err))
}

// restamp writes the pending batch as the first of a new session, where the broker does not know the old one.
func (c *kafkaCall) restamp(ctx context.Context, lane *kafkaLane, err error,
	renew func(context.Context, kafkaSession, string) (kafkaSession, error),
) {
	s, e := renew(ctx, lane.part.pending.session, err.Error())
	if e == nil {
		lane.part.begin(lane.part.pending.clone(), s)
	}
	c.again(lane, errors.Join(err, e))
}

// again schedules another attempt of the lane, and has the layout renewed for it.
func (c *kafkaCall) again(lane *kafkaLane, err error) {
	lane.last = err
	c.stale.Store(true)
	lane.after = time.Now().Add(lane.retry.next())
	if lane.retry.tries > 1 && lane.part.failing.IsZero() { // the first time is nothing special, the third nothing new
		lane.part.failing = time.Now()
		c.p.cfg.Logger.Warn("Kafka: batch not acknowledged, will send it until it is", "topic", lane.part.topic,
			"partition", lane.part.index, "error", err)
	}
}

// renew looks the topics' leaders up again after something failed. When it cannot, the old ones serve on.
func (c *kafkaCall) renew(ctx context.Context) {
	if !c.stale.Swap(false) {
		return
	}
	c.p.refresh()
	found, err := c.p.layout(ctx, slices.Collect(maps.Keys(c.topics)))
	if err != nil {
		c.p.cfg.Logger.Debug("Kafka: no new layout", "error", err)
		return
	}
	for name, t := range found {
		if t.err == nil {
			c.topics[name] = t
		}
	}
}
