package outbox

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
)

// KafkaConfig configures NewKafka. The zero value is a publisher that neither compresses nor creates topics.
type KafkaConfig struct {
	// CreateTopics makes a missing topic at its first message. Otherwise such messages fail, to be tried again later.
	CreateTopics bool
	// Partitions and ReplicationFactor are those of created topics; 0 means the broker's own defaults.
	Partitions, ReplicationFactor int
	// Compression of record batches; default none. kafka.Zstd, kafka.Lz4, kafka.Snappy and kafka.Gzip work.
	Compression kafka.Compression
	// Source is the ce_source of messages; default "amends".
	Source string
	// BatchBytes is about the largest batch, before compression; default 900,000 bytes, below the brokers' usual 1 MiB.
	// A larger message goes alone, and it is for the broker to refuse it.
	BatchBytes int
	// RequestTimeout is how long one attempt may take before the same bytes are sent again; default 5 s.
	RequestTimeout time.Duration
	// DeliveryTimeout is how long a Publish goes on trying; default 15 s. It costs no duplicates: the next Publish
	// that carries the same messages (by ID) sends the same bytes to the same partition, also when the topic has got
	// more partitions meanwhile. Brokers recognize them for producer.id.expiration.ms, a day by default.
	DeliveryTimeout time.Duration
	// ClientID names this client in the brokers' logs; default "amends".
	ClientID string
	// TLS and SASL secure the connections; nil means plain TCP and no authentication.
	TLS  *tls.Config
	SASL sasl.Mechanism
	// Logger receives retries and changes of the producer id; nil means slog.Default().
	Logger *slog.Logger
}

// complete fills in the defaults and reports every mistake at once.
func (c *KafkaConfig) complete() error {
	var errs []error
	for name, v := range map[string]int64{
		"Partitions": int64(c.Partitions), "ReplicationFactor": int64(c.ReplicationFactor),
		"BatchBytes": int64(c.BatchBytes), "RequestTimeout": int64(c.RequestTimeout),
		"DeliveryTimeout": int64(c.DeliveryTimeout),
	} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("outbox: KafkaConfig.%s is negative: use 0 for the default", name))
		}
	}
	if c.Partitions > math.MaxInt32 || c.ReplicationFactor > math.MaxInt16 {
		errs = append(errs, errors.New("outbox: KafkaConfig.Partitions or ReplicationFactor is too large for Kafka"))
	}
	if c.Compression != 0 && c.Compression.Codec() == nil {
		errs = append(errs, fmt.Errorf("outbox: KafkaConfig.Compression %d is unknown", int8(c.Compression)))
	}
	setDefault(&c.Source, "amends")
	setDefault(&c.ClientID, "amends")
	setDefault(&c.BatchBytes, 900_000)
	setDefault(&c.RequestTimeout, 5*time.Second)
	setDefault(&c.DeliveryTimeout, 15*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// KafkaPublisher is a Publisher that writes to Kafka as an idempotent producer: it numbers its batches, keeps at most
// one unanswered batch per partition, and sends the same bytes again when it could not learn what became of them, so
// that a retry puts nothing twice and nothing out of order into the log. A message goes to the partition that Java's
// default partitioner chooses for its key; one without a key is spread by its ID. All in-sync replicas acknowledge.
//
// It is safe for concurrent use. Calls that touch the same partition take turns.
type KafkaPublisher struct {
	cfg       KafkaConfig
	addr      net.Addr
	transport *kafka.Transport
	client    *kafka.Client

	producer kafkaProducer

	mu        sync.Mutex // guards what follows
	parts     map[topicPartition]*kafkaPartition
	refreshed time.Time
}

type topicPartition struct {
	topic string
	index int
}

// NewKafka makes a publisher for a cluster, of which brokers are some host:port addresses. It does not connect: that
// happens at the first Publish. A nil cfg is the zero KafkaConfig.
func NewKafka(brokers []string, cfg *KafkaConfig) (*KafkaPublisher, error) {
	c := KafkaConfig{}
	if cfg != nil {
		c = *cfg
	}
	err := c.complete()
	if len(brokers) == 0 {
		err = errors.Join(errors.New("outbox: NewKafka: no brokers: name at least one host:port"), err)
	}
	for _, b := range brokers {
		if _, _, e := net.SplitHostPort(b); e != nil {
			err = errors.Join(err, fmt.Errorf("outbox: NewKafka: broker %q: %w", b, e))
		}
	}
	if err != nil {
		return nil, err
	}
	p := &KafkaPublisher{
		cfg:       c,
		addr:      kafka.TCP(brokers...),
		transport: &kafka.Transport{ClientID: c.ClientID, TLS: c.TLS, SASL: c.SASL, DialTimeout: c.RequestTimeout},
		parts:     make(map[topicPartition]*kafkaPartition),
	}
	p.client = &kafka.Client{Addr: p.addr, Transport: p.transport, Timeout: c.RequestTimeout}
	p.producer = kafkaProducer{init: p.initProducer, log: c.Logger}
	return p, nil
}

// Publish writes msgs and answers with one result per message, in their order; nil means that all are acknowledged.
//
// Messages of one key keep their order: when one fails, the later ones of its partition fail too, unsent. A message
// that Kafka will never take (larger than its limit, too old for the topic, an impossible topic name) fails with
// ErrPoison; any other error may pass, and the caller should publish the same messages again. It gives up when ctx
// ends, at the latest after KafkaConfig.DeliveryTimeout.
func (p *KafkaPublisher) Publish(ctx context.Context, msgs []Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DeliveryTimeout)
	defer cancel()
	c := &kafkaCall{p: p, msgs: msgs, results: make([]error, len(msgs))}
	c.route(ctx)
	unlock := c.lock(ctx)
	defer unlock()
	c.run(ctx)
	return c.outcome()
}

// Close closes the connections. What was acknowledged is in Kafka; nothing is buffered.
func (p *KafkaPublisher) Close() { p.transport.CloseIdleConnections() }

// partition answers with the one state of that partition, made when it is first asked for.
func (p *KafkaPublisher) partition(topic string, index int) *kafkaPartition {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := topicPartition{topic, index}
	part := p.parts[key]
	if part == nil {
		part = &kafkaPartition{topicPartition: key, turn: make(chan struct{}, 1), session: noKafkaSession}
		p.parts[key] = part
	}
	return part
}

// unsure answers where the messages went of which nobody knows whether they arrived, by topic and ID.
func (p *KafkaPublisher) unsure() map[[2]string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out map[[2]string]int
	for _, part := range p.parts {
		b := part.unsure.Load()
		if b == nil {
			continue
		}
		if out == nil {
			out = make(map[[2]string]int, len(b.ids))
		}
		for _, id := range b.ids {
			out[[2]string{part.topic, id}] = part.index
		}
	}
	return out
}
