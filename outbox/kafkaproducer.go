package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafkaSession is a producer id with its epoch. Brokers count sequence numbers per session and partition, and refuse
// the batches of an epoch once they have seen a higher one.
type kafkaSession struct {
	id    int64
	epoch int16
}

var noKafkaSession = kafkaSession{-1, -1} // immutable: what the protocol calls no producer

// kafkaProducer hands out the session that new batches are stamped with.
type kafkaProducer struct {
	init func(ctx context.Context) (kafkaSession, error)
	log  *slog.Logger

	mu      sync.Mutex // held during init, which is bounded by the request timeout
	current kafkaSession
	known   bool
}

// session answers with the current session, and asks the brokers for the first.
func (k *kafkaProducer) session(ctx context.Context) (kafkaSession, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known {
		return k.current, nil
	}
	return k.renew(ctx)
}

// bump replaces session old by its next epoch: the broker lost its count, or a batch whose fate is unknown must not
// arrive any more. Whoever comes second finds the work done.
func (k *kafkaProducer) bump(ctx context.Context, old kafkaSession, why string) (kafkaSession, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known && k.current != old {
		return k.current, nil
	}
	if old.epoch == math.MaxInt16 {
		return k.renew(ctx)
	}
	k.current = kafkaSession{old.id, old.epoch + 1}
	k.known = true
	k.log.Warn("Kafka producer epoch raised", "producer_id", old.id, "epoch", k.current.epoch, "reason", why)
	return k.current, nil
}

// replace gets a new producer id, where the brokers do not accept old any more.
func (k *kafkaProducer) replace(ctx context.Context, old kafkaSession, why string) (kafkaSession, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known && k.current != old {
		return k.current, nil
	}
	s, err := k.renew(ctx)
	if err == nil {
		k.log.Warn("Kafka producer id replaced", "old", old.id, "new", s.id, "reason", why)
	}
	return s, err
}

func (k *kafkaProducer) renew(ctx context.Context) (kafkaSession, error) {
	s, err := k.init(ctx)
	if err == nil {
		k.current, k.known = s, true
	}
	return s, err
}

// initProducer asks the brokers for a new producer id.
func (p *KafkaPublisher) initProducer(ctx context.Context) (kafkaSession, error) {
	res, err := p.client.InitProducerID(ctx, &kafka.InitProducerIDRequest{ProducerID: -1, ProducerEpoch: -1})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return noKafkaSession, fmt.Errorf("get a producer id: %w", err)
	}
	return kafkaSession{int64(res.Producer.ProducerID), int16(res.Producer.ProducerEpoch)}, nil
}

// kafkaPartition is what the publisher knows of one partition. Only the holder of turn touches the other fields.
type kafkaPartition struct {
	topicPartition
	turn    chan struct{}
	session kafkaSession
	next    int32       // sequence number of the next batch in this session
	pending *kafkaBatch // sent or about to be, not answered: the only bytes that may use its sequence numbers

	failing time.Time // since when batches are not acknowledged; zero: they are, or it is not worth a word yet

	unsure atomic.Pointer[kafkaBatch] // pending after its call gave up, for those without the turn
}

// begin makes b the pending batch, as the next one of session s.
func (k *kafkaPartition) begin(b *kafkaBatch, s kafkaSession) {
	if k.session != s {
		k.session, k.next = s, 0
	}
	b.stamp(s, k.next)
	k.pending = b
}

// acked ends the pending batch: its sequence numbers are used up.
func (k *kafkaPartition) acked() {
	k.next = int32((uint32(k.next) + uint32(len(k.pending.ids))) & math.MaxInt32) // wraps to 0, as in Java
	k.settled()
}

// settled ends the pending batch: its fate is known, or does not count any more.
func (k *kafkaPartition) settled() {
	k.pending = nil
	k.unsure.Store(nil)
}
