package outbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// The header of a record batch, format 2 (the only one that carries a producer id). Offsets count from the start of
// the batch; the bytes in front of it are the size that the produce request wants.
const (
	sizeBytes       = 4
	offLength       = 8
	offMagic        = 16
	offCRC          = 17
	offAttributes   = 21 // the checksum covers everything from here
	offLastDelta    = 23
	offFirstTime    = 27
	offMaxTime      = 35
	offProducerID   = 43
	offEpoch        = 51
	offSequence     = 53
	offCount        = 57
	batchHeaderSize = 61
)

//nolint:gochecknoglobals // an immutable table
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// kafkaBatch is an encoded batch. Its bytes stay until Kafka has answered for them.
type kafkaBatch struct {
	data    []byte // with the leading size
	ids     []string
	session kafkaSession
}

// encodeBatch makes a batch of one or more messages, without a producer: stamp gives it one.
func encodeBatch(msgs []Message, source string, compression kafka.Compression) (*kafkaBatch, error) {
	b := &kafkaBatch{ids: make([]string, len(msgs)), session: noKafkaSession}
	first, last := int64(0), int64(0)
	records := make([]byte, sizeBytes+batchHeaderSize, sizeBytes+batchHeaderSize+recordsSize(msgs))
	var scratch []byte
	var headers []recordHeader
	times := timeText{}
	for i := range msgs {
		m := &msgs[i]
		b.ids[i] = m.ID
		at := recordTime(m)
		if i == 0 {
			first, last = at, at
		}
		last = max(last, at)
		headers = recordHeaders(headers[:0], m, source, times.of(at))
		scratch = appendRecord(scratch[:0], m, headers, at-first, int64(i))
		records = binary.AppendVarint(records, int64(len(scratch)))
		records = append(records, scratch...)
	}
	if compression != 0 {
		var err error
		if records, err = compressBatch(records, compression); err != nil {
			return nil, err
		}
	}
	b.data = records
	binary.BigEndian.PutUint32(b.data, uint32(len(b.data)-sizeBytes))
	h := b.data[sizeBytes:]
	binary.BigEndian.PutUint32(h[offLength:], uint32(len(h)-offLength-4))
	binary.BigEndian.PutUint32(h[offLength+4:], ^uint32(0)) // leader epoch: the broker's to fill in
	h[offMagic] = 2
	binary.BigEndian.PutUint16(h[offAttributes:], uint16(compression))
	binary.BigEndian.PutUint32(h[offLastDelta:], uint32(len(msgs)-1))
	binary.BigEndian.PutUint64(h[offFirstTime:], uint64(first))
	binary.BigEndian.PutUint64(h[offMaxTime:], uint64(last))
	binary.BigEndian.PutUint32(h[offCount:], uint32(len(msgs)))
	b.stamp(noKafkaSession, -1)
	return b, nil
}

// stamp writes who produces the batch and its first sequence number, and the checksum over all of it.
func (b *kafkaBatch) stamp(s kafkaSession, sequence int32) {
	b.session = s
	h := b.data[sizeBytes:]
	binary.BigEndian.PutUint64(h[offProducerID:], uint64(s.id))
	binary.BigEndian.PutUint16(h[offEpoch:], uint16(s.epoch))
	binary.BigEndian.PutUint32(h[offSequence:], uint32(sequence))
	binary.BigEndian.PutUint32(h[offCRC:], crc32.Checksum(h[offAttributes:], castagnoli))
}

// clone is a copy to stamp anew: a connection that was given up may still be reading the original's bytes.
func (b *kafkaBatch) clone() *kafkaBatch {
	return &kafkaBatch{data: bytes.Clone(b.data), ids: b.ids, session: b.session}
}

// compressBatch replaces the records behind the header by their compressed form.
func compressBatch(batch []byte, compression kafka.Compression) ([]byte, error) {
	const head = sizeBytes + batchHeaderSize
	out := bytes.NewBuffer(make([]byte, head, head+len(batch)/2))
	w := compression.Codec().NewWriter(out)
	if _, err := w.Write(batch[head:]); err != nil {
		return nil, fmt.Errorf("outbox: kafka: compress a batch with %s: %w", compression, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("outbox: kafka: compress a batch with %s: %w", compression, err)
	}
	return out.Bytes(), nil
}

func appendRecord(b []byte, m *Message, headers []recordHeader, timeDelta, offsetDelta int64) []byte {
	b = append(b, 0) // attributes: none are defined
	b = binary.AppendVarint(b, timeDelta)
	b = binary.AppendVarint(b, offsetDelta)
	if m.Key == "" {
		b = binary.AppendVarint(b, -1)
	} else {
		b = appendVarString(b, m.Key)
	}
	if m.Body == nil {
		b = binary.AppendVarint(b, -1)
	} else {
		b = binary.AppendVarint(b, int64(len(m.Body)))
		b = append(b, m.Body...)
	}
	b = binary.AppendVarint(b, int64(len(headers)))
	for _, h := range headers {
		b = appendVarString(b, h.name)
		b = appendVarString(b, h.value)
	}
	return b
}

func appendVarString(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

// HeaderID is the record header that holds Message.ID, by which consumers know a message again.
const HeaderID = "amends-id"

type recordHeader struct{ name, value string }

// recordHeaders appends the message's id, the attributes of a CloudEvent in binary mode, and the message's own headers in
// the order of their names. An attribute that the message sets itself is left to it; its id is not.
func recordHeaders(out []recordHeader, m *Message, source, at string) []recordHeader {
	if m.ID != "" {
		out = append(out, recordHeader{HeaderID, m.ID})
	}
	for _, h := range [...]recordHeader{
		{"ce_id", m.ID},
		{"ce_source", source},
		{"ce_specversion", "1.0"},
		{"ce_time", at},
		{"ce_type", m.Topic},
	} {
		if _, own := m.Headers[h.name]; !own && h.value != "" {
			out = append(out, h)
		}
	}
	if len(m.Headers) == 0 {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		if name != HeaderID || m.ID == "" {
			out = append(out, recordHeader{name, m.Headers[name]})
		}
	}
	return out
}

// timeText writes record times. Messages of one transaction have the same.
type timeText struct {
	at   int64
	text string
}

func (t *timeText) of(at int64) string {
	if t.text == "" || t.at != at {
		t.at, t.text = at, time.UnixMilli(at).UTC().Format(time.RFC3339Nano)
	}
	return t.text
}

// recordTime is the record's timestamp in Unix milliseconds: when the message was written, or now.
func recordTime(m *Message) int64 {
	if m.CreatedAt.IsZero() {
		return time.Now().UnixMilli()
	}
	return m.CreatedAt.UnixMilli()
}

// messageSize is about what a message takes in a batch before compression.
func messageSize(m *Message) int {
	size := len(m.Body) + len(m.Key) + 2*len(m.ID) + len(m.Topic) + 160
	for name, value := range m.Headers {
		size += len(name) + len(value) + 4
	}
	return size
}

func recordsSize(msgs []Message) int {
	size := 0
	for i := range msgs {
		size += messageSize(&msgs[i])
	}
	return size
}
