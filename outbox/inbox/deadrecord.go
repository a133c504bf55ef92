package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// requeues are the records of what was requeued.
type requeues map[requeuedLetter]*Requeued

// requeuedLetter names a dead letter. Its place alone does not: when the dead letters' topic was deleted and made anew,
// places come again, and the records of the old ones must not hide the new ones.
type requeuedLetter struct {
	deadPlace
	id, failed string // empty in records of earlier versions
}

func nameOf(l *DeadLetter) requeuedLetter {
	return requeuedLetter{deadPlace{l.Partition, l.Offset}, l.Message.ID, l.Failed.UTC().Format(time.RFC3339Nano)}
}

// of is the record of a letter, or nil. One that names the place alone is of another letter if it is older.
func (r requeues) of(l *DeadLetter) *Requeued {
	if found := r[nameOf(l)]; found != nil {
		return found
	}
	found := r[requeuedLetter{deadPlace: deadPlace{l.Partition, l.Offset}}]
	if found == nil || found.At.Before(l.Failed) {
		return nil
	}
	return found
}

// record tells that the letter was requeued.
func (l *DeadLetter) record(req *RequeueRequest) outbox.Message {
	name := nameOf(l)
	at := name.deadPlace.String()
	headers := map[string]string{
		HeaderRequeued: at, headerReason: cut(errors.New(req.Reason)), headerActor: cut(errors.New(req.Actor)),
		headerLetter: name.id, HeaderFailed: name.failed,
	}
	return outbox.Message{Topic: l.Message.Topic + requeuedSuffix, ID: "requeued-" + at, Key: l.Message.Key, Headers: headers}
}

// requeued reads which letters were requeued.
func (d *DeadLetters) requeued(ctx context.Context) (requeues, error) {
	topic := d.topic + requeuedSuffix
	spans, err := d.spans(ctx, topic)
	if err != nil {
		return nil, err
	}
	done := requeues{}
	for p, s := range spans {
		for at := s.first; at < s.end; {
			var records []record
			err := d.again(ctx, func() (err error) {
				var next int64
				records, next, _, err = fetchRecords(ctx, d.client, TopicPartition{topic, p}, at, fetchBytes)
				if err == nil {
					at = next
				}
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("inbox: dead letters: read %s: %w", topic, err)
			}
			for _, r := range records {
				done.add(&r.message)
			}
		}
	}
	return done, nil
}

// add takes note of a record; what is none is somebody else's.
func (r requeues) add(m *outbox.Message) {
	h := m.Headers
	partition, offset, err := ParseDeadLetterPlace(h[HeaderRequeued])
	if err != nil {
		return
	}
	r[requeuedLetter{deadPlace{partition, offset}, h[headerLetter], h[HeaderFailed]}] =
		&Requeued{At: m.CreatedAt, Reason: h[headerReason], Actor: h[headerActor]}
}
