package inbox

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"testing"
	"time"

	"bytes"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/amends-dev/amends/outbox"
)

// emptyBatch is what Kafka's cleaner keeps of an idempotent producer's last batch: the header.
func emptyBatch(base int64, lastDelta int32) []byte {
	h := make([]byte, 61)
	binary.BigEndian.PutUint64(h[0:], uint64(base))
	binary.BigEndian.PutUint32(h[8:], 49)
	h[16] = 2
	binary.BigEndian.PutUint32(h[23:], uint32(lastDelta))
	binary.BigEndian.PutUint64(h[43:], 7)
	binary.BigEndian.PutUint32(h[17:], crc32.Checksum(h[21:], crc32.MakeTable(crc32.Castagnoli)))
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(h))), h...)
}

// a batch of 5 messages at offset 10, all compacted away. The broker answers a fetch from 10 to 14 with it.
func TestEmptyBatchIsPassed(t *testing.T) {
	from := int64(10)
	for round := 0; from <= 14; round++ {
		if round == 10 {
			t.Fatalf("still at offset %d after 10 fetches: the consumer asks for it for ever, without a pause", from)
		}
		var rs protocol.RecordSet
		if _, err := rs.ReadFrom(bytes.NewReader(emptyBatch(10, 4))); err != nil {
			t.Fatal(err)
		}
		_, next, err := readRecords(rs.Records, "t", 0, from)
		if err != nil {
			t.Fatal(err)
		}
		from = next
	}
}

// C1, the usual case: of [10, 11] the cleaner removed 11, and the batch is the last of its segment.
func TestCompactedTailIsPassed(t *testing.T) {
	batch := func() protocol.RecordReader {
		return &protocol.RecordBatch{BaseOffset: 10, Records: protocol.NewRecordReader(protocol.Record{Offset: 10})}
	}
	_, next, err := readRecords(&protocol.RecordStream{Records: []protocol.RecordReader{batch()}}, "t", 0, 10)
	if err != nil || next != 11 {
		t.Fatal(next, err)
	}
	got, next, err := readRecords(&protocol.RecordStream{Records: []protocol.RecordReader{batch()}}, "t", 0, next)
	if err != nil || len(got) != 0 || next != 12 {
		t.Errorf("%d messages up to %d (%v), want none up to 12: the same fetch again and again", len(got), next, err)
	}
}

// the dead letter, with its headers on top, is too large for its topic: the partition stops.
func TestDeadLetterTooLarge(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 6, 1)
	var dead []outbox.Message
	pub := outbox.PublishFunc(func(_ context.Context, m outbox.Message) error {
		if len(m.Body) > 0 {
			return outbox.Poison(errors.New("over max.message.bytes"))
		}
		dead = append(dead, m)
		return nil
	})
	c := b.consumer(t, ConsumerConfig{Attempts: 1, MaxBackoff: 20 * time.Millisecond, DeadLetters: pub}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		if m.ID == "id-2" {
			return errors.New("no")
		}
		return insertHandled(ctx, tx, m)
	}, topic)
	stop := start(t, c)
	eventually(t, "all seen", func() bool { return c.Stats().Dead+c.Stats().Handled >= 6 })
	stop()
	if s := c.Stats(); s.Dead != 1 || s.Handled != 5 {
		t.Errorf("%+v: want 1 dead and 5 handled", s)
	}
}

// a message whose transaction can never commit is tried for ever, and all behind it in the partition's offsets.
func TestCommitThatAlwaysFails(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	b.db = openDB(t, "sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "db"))+"&_pragma=foreign_keys(1)", outbox.SQLite, handledSQLite)
	for _, s := range []string{"CREATE TABLE parents (id INTEGER PRIMARY KEY)",
		"CREATE TABLE children (id INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"} {
		if _, err := b.db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	b.publish(t, topic, 0, 6, 1)
	c := b.consumer(t, ConsumerConfig{Attempts: 3, MaxBackoff: 20 * time.Millisecond}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		if m.ID == "id-2" {
			if _, err := tx.ExecContext(ctx, "PRAGMA defer_foreign_keys = 1"); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO children VALUES (1)")
			return err
		}
		return insertHandled(ctx, tx, m)
	}, topic)
	stop := start(t, c)
	eventually(t, "5 handled, and a dead letter after 3 attempts", func() bool {
		return c.Stats().Handled == 5 && c.Stats().Dead == 1
	})
	stop()
}
