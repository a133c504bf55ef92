package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// DefaultTopic is the topic of NewPublisher unless told otherwise.
const DefaultTopic = "amends.lifecycle"

// Message is an event as a log such as Kafka keeps it: a CloudEvent in binary
// mode, its attributes in Headers under "ce_…", its data in Body as JSON. Its Key
// is the gid: a transaction's events stay in order.
type Message = store.Message

// PublishFunc hands messages to a log. It answers as outbox.Publisher does: one
// error for each message, in their order, nil for those that are durable over
// there, or nil instead of the slice for all; after one that failed, no later
// message of its key is published. An error that wraps ErrRejected says that a
// message never will be.
type PublishFunc func(ctx context.Context, msgs []Message) []error

// NewPublisher makes a Sink that publishes events to a topic; "" stands for
// DefaultTopic. When some fail, all of them are published again, so that
// readers meet some twice, with the same ce_id.
func NewPublisher(publish PublishFunc, topic string) Sink {
	if topic == "" {
		topic = DefaultTopic
	}
	return publisher{publish, topic}
}

type publisher struct {
	publish PublishFunc
	topic   string
}

// Send implements Sink.
func (p publisher) Send(ctx context.Context, events []Event) error {
	msgs := make([]Message, len(events))
	for i, e := range events {
		var err error
		if msgs[i], err = p.message(e); err != nil {
			return err
		}
	}
	return p.outcome(p.publish(ctx, msgs), len(msgs))
}

func (p publisher) message(e Event) (Message, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return Message{}, fmt.Errorf("notify: publisher: event %q: %w: %w", e.ID, ErrRejected, err)
	}
	return Message{
		Topic: p.topic, Key: e.GID, ID: e.Source + "/" + e.ID, Body: body,
		Headers: map[string]string{
			"ce_specversion": specVersion, "ce_id": e.ID, "ce_source": e.Source, "ce_type": string(e.Type),
			"ce_subject": e.GID, "ce_time": e.Time.Format(time.RFC3339Nano), "content-type": dataType,
		},
	}, nil
}

// outcome is one error for all: the first, or the first rejection after which
// others were held back.
func (p publisher) outcome(errs []error, n int) error {
	if errs == nil {
		return nil
	}
	if len(errs) != n {
		return fmt.Errorf("notify: publisher: %d answers for %d messages", len(errs), n)
	}
	var rejected error
	for _, err := range errs {
		switch {
		case errors.Is(err, ErrRejected):
			rejected = err
		case err != nil && rejected == nil:
			return fmt.Errorf("notify: publish to %q: %w", p.topic, err)
		}
	}
	if rejected != nil {
		return fmt.Errorf("notify: publish to %q: %w", p.topic, rejected)
	}
	return nil
}
