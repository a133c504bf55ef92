package inbox

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/outbox"
)

// TestDeadTopicMadeAnew: letters that lie where requeued ones lay before the topic was deleted are letters like any
// other, and a page from before is refused.
func TestDeadTopicMadeAnew(t *testing.T) {
	t.Parallel()
	b := inProcess(t)
	topic := b.topic(t, 3)
	d := b.dead(t, topic)
	const n = 30
	b.lay(t, topic, n)
	_, page, err := d.List(t.Context(), DeadLetterQuery{Limit: n - 1})
	if err != nil || page == "" {
		t.Fatalf("a page: %q, %v", page, err)
	}
	requeue := func(want int) {
		t.Helper()
		if res, err := d.Requeue(t.Context(), RequeueRequest{All: true, Offset: -1, Reason: "r"}); err != nil || res.Requeued != want {
			t.Fatalf("requeued %+v, %v; want %d", res, err, want)
		}
		if all := b.listAll(t, d, DeadLetterQuery{Limit: 10}); len(all) != 0 {
			t.Fatalf("%d wait still", len(all))
		}
	}
	requeue(n)
	b.client(t, func(c *kafka.Client) error {
		res, err := c.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{DeadTopic(topic)}})
		if err != nil {
			return err
		}
		return res.Errors[DeadTopic(topic)]
	})
	b.lay(t, topic, 1)
	if _, _, err := d.List(t.Context(), DeadLetterQuery{Limit: 1, Page: page}); !errors.Is(err, ErrDeadLetterPage) ||
		!strings.Contains(err.Error(), "made anew") {
		t.Errorf("with a page of the old one: %v", err)
	}
	if all := b.listAll(t, d, DeadLetterQuery{Limit: 10}); len(all) != 1 || all[0].Message.ID != "id-0" || all[0].Requeued != nil {
		t.Errorf("the new one has %+v; want one that waits", all)
	}
	requeue(1)
}

// TestRequeuesOfEarlierVersions name a place alone: they are about what failed before.
func TestRequeuesOfEarlierVersions(t *testing.T) {
	at := time.Now()
	l := &DeadLetter{Partition: 1, Offset: 2, Message: outbox.Message{ID: "a"}, Failed: at}
	record := l.record(&RequeueRequest{Reason: "r", Actor: "me"})
	old := outbox.Message{CreatedAt: at.Add(time.Second), Headers: map[string]string{
		HeaderRequeued: record.Headers[HeaderRequeued], headerReason: "old"}}
	for _, tc := range []struct {
		name   string
		record outbox.Message
		letter DeadLetter
		reason string
	}{
		{"its own", record, *l, "r"},
		{"another message there", record, DeadLetter{Partition: 1, Offset: 2, Message: outbox.Message{ID: "b"}, Failed: at}, ""},
		{"it failed again there", record, DeadLetter{Partition: 1, Offset: 2, Message: outbox.Message{ID: "a"}, Failed: at.Add(1)}, ""},
		{"elsewhere", record, DeadLetter{Partition: 1, Offset: 3, Message: outbox.Message{ID: "a"}, Failed: at}, ""},
		{"an earlier version's", old, *l, "old"},
		{"an earlier version's of another one", old, DeadLetter{Partition: 1, Offset: 2, Failed: at.Add(time.Minute)}, ""},
		{"an earlier version's of a letter without a time", old, DeadLetter{Partition: 1, Offset: 2}, "old"},
	} {
		done := requeues{}
		done.add(&tc.record)
		got := ""
		if r := done.of(&tc.letter); r != nil {
			got = r.Reason
		}
		if got != tc.reason {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.reason)
		}
	}
}
