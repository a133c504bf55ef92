package inbox

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"

	"github.com/amends-dev/amends/outbox"
)

// ErrNoDeadLetter is returned for a place that holds none.
var ErrNoDeadLetter = errors.New("inbox: no such dead letter")

// ErrDeadLetterPage is returned for a DeadLetterQuery.Page that no answer to the same query had.
var ErrDeadLetterPage = errors.New("inbox: dead letters: field Page is not from an answer to this query")

// requeuedSuffix is that of the topic, beside the dead letters', which records what was requeued.
const requeuedSuffix = deadSuffix + ".requeued"

// Headers of the records of what was requeued.
const (
	headerReason = "amends-reason"
	headerActor  = "amends-actor"
	headerLetter = "amends-letter" // the id of the letter's message; HeaderFailed is when it failed
)

// DeadLettersConfig configures NewDeadLetters. The zero value has the defaults.
type DeadLettersConfig struct {
	// TLS and SASL secure the connections; nil means plain TCP and no authentication.
	TLS  *tls.Config
	SASL sasl.Mechanism
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

// DeadLetters are those of one topic, of all groups: what consumers gave up, in the topic's name with ".dead" at its
// end. They are read straight from the log, and stay there until its retention ends; what was requeued is recorded in a
// topic beside it, with ".dead.requeued" at its end, which Requeue makes. Safe for concurrent use.
type DeadLetters struct {
	topic     string // that the letters come from
	transport *kafka.Transport
	client    *kafka.Client
	own       *outbox.KafkaPublisher
	pub       outbox.Publisher // own
}

// DeadLetter is a message that a consumer gave up.
type DeadLetter struct {
	// Partition and Offset are the letter's place in the dead letters' topic.
	Partition int
	Offset    int64
	// Message is what was given up, with its own topic and headers. List leaves the body out.
	Message outbox.Message
	// Size is that of the body, in bytes. BodyLeftOut tells that the letter never had it: it would have been too
	// large. The original may still be found at its origin.
	Size        int
	BodyLeftOut bool
	// Group is whose handler failed, Attempts how often, and Error how at last.
	Group    string
	Attempts int
	Error    string
	// FirstFailed and Failed are when it was first and last given up; zero when the letter does not tell.
	FirstFailed, Failed time.Time
	// OriginPartition and OriginOffset are the message's place in its own topic.
	OriginPartition int
	OriginOffset    int64
	// Requeued is the last time that it was; nil for one that waits.
	Requeued *Requeued
}

// Requeued is the record of a dead letter that went back to its topic.
type Requeued struct {
	At            time.Time
	Reason, Actor string
}

// NewDeadLetters opens the dead letters of a topic. It connects when it is used. A nil cfg is the zero
// DeadLettersConfig. Close it at the end.
func NewDeadLetters(brokers []string, topic string, cfg *DeadLettersConfig) (*DeadLetters, error) {
	c := DeadLettersConfig{}
	if cfg != nil {
		c = *cfg
	}
	pub, err := outbox.NewKafka(brokers, &outbox.KafkaConfig{CreateTopics: true, TLS: c.TLS, SASL: c.SASL, Logger: c.Logger})
	if topic == "" || len(topic)+len(requeuedSuffix) > outbox.MaxTopic {
		err = errors.Join(err, fmt.Errorf("inbox: dead letters: topic %q: name the topic that the messages were published to, "+
			"of at most %d bytes", topic, outbox.MaxTopic-len(requeuedSuffix)))
	}
	if err != nil {
		return nil, err
	}
	tr := &kafka.Transport{ClientID: "amends", TLS: c.TLS, SASL: c.SASL}
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: tr, Timeout: requestTimeout}
	return &DeadLetters{topic: topic, transport: tr, client: client, own: pub, pub: pub}, nil
}

// Topic is the one that the letters come from, without .dead at its end.
func (d *DeadLetters) Topic() string { return d.topic }

// Close lets go of the connections.
func (d *DeadLetters) Close() {
	d.transport.CloseIdleConnections()
	d.own.Close()
}

// Get reads one dead letter, with its body.
func (d *DeadLetters) Get(ctx context.Context, partition int, offset int64) (DeadLetter, error) {
	none := fmt.Errorf("%w at %d/%d of %s", ErrNoDeadLetter, partition, offset, DeadTopic(d.topic))
	spans, err := d.spans(ctx, DeadTopic(d.topic))
	if err != nil {
		return DeadLetter{}, err
	}
	if partition < 0 || partition >= len(spans) || offset < spans[partition].first || offset >= spans[partition].end {
		return DeadLetter{}, none
	}
	done, err := d.requeued(ctx)
	if err != nil {
		return DeadLetter{}, err
	}
	c := &cursor{
		d: d, at: TopicPartition{DeadTopic(d.topic), partition}, first: offset, end: offset + 1, next: offset, bodies: true,
		keep: func(l *DeadLetter) bool { return l.Offset == offset },
	}
	l, err := c.peek(ctx)
	if err != nil || l == nil {
		return DeadLetter{}, errors.Join(err, none)
	}
	l.Requeued = done.of(l)
	return *l, nil
}

// deadPlace is a place in the dead letters' topic.
type deadPlace struct {
	partition int
	offset    int64
}

func (p deadPlace) String() string {
	return strconv.Itoa(p.partition) + "/" + strconv.FormatInt(p.offset, 10)
}

// ParseDeadLetterPlace reads partition/offset, as in 2/17.
func ParseDeadLetterPlace(s string) (partition int, offset int64, err error) {
	left, right, _ := strings.Cut(s, "/")
	p, err1 := strconv.ParseInt(left, 10, 32)
	o, err2 := strconv.ParseInt(right, 10, 64)
	if err1 != nil || err2 != nil || p < 0 || o < 0 {
		return 0, 0, fmt.Errorf("inbox: %q is not the place of a dead letter: want partition/offset, such as 2/17", s)
	}
	return int(p), o, nil
}

// letterOf reads a record of the dead letters' topic. The topic that it goes back to is the one that was asked about,
// whatever its headers say.
func (d *DeadLetters) letterOf(r record, partition int) *DeadLetter {
	m := r.message
	h := m.Headers
	l := &DeadLetter{
		Partition: partition, Offset: r.offset, Message: m, Size: len(m.Body), BodyLeftOut: h[HeaderBody] != "",
		Group: h[HeaderGroup], Error: h[HeaderError], OriginPartition: -1, OriginOffset: -1,
	}
	if n, err := strconv.Atoi(h[HeaderAttempts]); err == nil {
		l.Attempts = n
	}
	if n, err := strconv.Atoi(h[HeaderPartition]); err == nil {
		l.OriginPartition = n
	}
	if n, err := strconv.ParseInt(h[HeaderOffset], 10, 64); err == nil {
		l.OriginOffset = n
	}
	l.FirstFailed, l.Failed = headerTime(h[HeaderFirstFailed]), headerTime(h[HeaderFailed])
	restoreCreated(&l.Message)
	l.Message.Topic = d.topic
	l.Message.Headers = maps.Clone(h)
	for _, name := range failureHeaders() {
		delete(l.Message.Headers, name)
	}
	return l
}

// headerTime is zero for what is no time.
func headerTime(s string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return at
}
