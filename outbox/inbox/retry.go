package inbox

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// Headers of messages in retry topics and of dead letters, beside those that the message had.
const (
	HeaderError       = "amends-error"           // the last error: valid UTF-8, at most about 1 KiB
	HeaderAttempts    = "amends-attempts"        // how often a handler failed in all, a decimal number
	HeaderFirstFailed = "amends-first-failed-at" // when the message first went to a retry topic or the dead letters, RFC 3339
	HeaderFailed      = "amends-failed-at"       // when it last did
	HeaderGroup       = "amends-group"           // whose handler failed
	HeaderTopic       = "amends-topic"           // where the message was published, with the two below
	HeaderPartition   = "amends-partition"
	HeaderOffset      = "amends-offset"
	HeaderCreated     = "amends-created-at" // Message.CreatedAt, RFC 3339: a copy's own time is when it was made
	HeaderRetryAt     = "amends-retry-at"   // when it is to be tried again, RFC 3339; without it, once its turn comes
	HeaderBody        = "amends-body"       // set where the body was left out, as it would have been too large
	HeaderRequeued    = "amends-requeued"   // set by DeadLetters.Requeue: partition/offset of the dead letter
)

// headerRetries is how often a message was sent to a retry topic because it failed, and not to wait for its turn.
const headerRetries = "amends-retries"

// headerTurn is set on a copy in a retry topic that has a row in the table of parked messages. One without it was sent
// by a member without KeepOrder, and is nobody's to wait for.
const headerTurn = "amends-turn"

// failureHeaders are taken off a message that starts anew.
func failureHeaders() []string {
	return []string{
		HeaderError, HeaderAttempts, HeaderFirstFailed, HeaderFailed, HeaderGroup, HeaderTopic, HeaderPartition, HeaderOffset,
		HeaderCreated, HeaderRetryAt, HeaderBody, headerRetries, headerTurn,
	}
}

func isFailureHeader(name string) bool { return slices.Contains(failureHeaders(), name) }

const (
	deadSuffix   = ".dead"
	maxDeadError = 1024 // bytes of an error kept in a header
)

// RetryTopic is the name of the retry topic of a topic, a group and a delay: orders.mailer.retry.1m30s.
func RetryTopic(topic, group string, delay time.Duration) string {
	d := delay.String()
	if strings.HasSuffix(d, "m0s") {
		d = strings.TrimSuffix(d, "0s")
	}
	if strings.HasSuffix(d, "h0m") {
		d = strings.TrimSuffix(d, "0m")
	}
	return topic + "." + group + ".retry." + d
}

// DeadTopic is the name of the topic of a topic's dead letters, of all groups: orders.dead.
func DeadTopic(topic string) string { return topic + deadSuffix }

// retries are the retry topics of a consumer. Its methods take nil for none.
type retries struct {
	delays  []time.Duration
	byName  map[string]*retryTopic
	byTopic map[string][]*retryTopic // by level
}

// retryTopic is where a message waits after it failed.
type retryTopic struct {
	name, origin string
	level        int
	delay        time.Duration
}

func newRetries(topics []string, group string, delays []time.Duration) (*retries, error) {
	if len(delays) == 0 {
		return nil, nil
	}
	var errs []error
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if i := strings.IndexFunc(group, func(r rune) bool { return !legal(r) }); i >= 0 {
		errs = append(errs, fmt.Errorf("inbox: NewConsumer: the names of retry topics hold the group's, and %q has a %q: "+
			"use letters, digits, '.', '_' and '-', or no RetryDelays", group, group[i]))
	}
	r := &retries{delays: delays, byName: map[string]*retryTopic{}, byTopic: map[string][]*retryTopic{}}
	for _, topic := range topics {
		for level, delay := range delays {
			t := &retryTopic{RetryTopic(topic, group, delay), topic, level, delay}
			if len(t.name) > outbox.MaxTopic {
				errs = append(errs, fmt.Errorf("inbox: NewConsumer: retry topic %q is longer than %d bytes: use shorter names",
					t.name, outbox.MaxTopic))
			}
			if slices.Contains(topics, t.name) {
				errs = append(errs, fmt.Errorf("inbox: NewConsumer: topic %q is a retry topic of %q: leave it out", t.name, topic))
			}
			r.byName[t.name] = t
			r.byTopic[topic] = append(r.byTopic[topic], t)
		}
	}
	return r, errors.Join(errs...)
}

// names are all retry topics.
func (r *retries) names() []string {
	if r == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.byName))
}

// of are the retry topics of a topic.
func (r *retries) of(topic string) (names []string) {
	if r == nil {
		return nil
	}
	for _, t := range r.byTopic[topic] {
		names = append(names, t.name)
	}
	return names
}

// named is the retry topic of a name, or nil.
func (r *retries) named(name string) *retryTopic {
	if r == nil {
		return nil
	}
	return r.byName[name]
}

// next is the retry topic that a message goes to, nil for the dead letters: the next one, or the last one again for a
// message that waited its turn in the earlier ones, and was not tried there.
func (r *retries) next(it *item, why error) *retryTopic {
	if r == nil || errors.Is(why, outbox.ErrPoison) {
		return nil
	}
	all := r.byTopic[it.tracker.origin]
	if !errors.Is(why, errBehind) && it.place.retries >= len(all) {
		return nil
	}
	level := 0
	if it.tracker.retry != nil {
		level = it.tracker.retry.level + 1
	}
	return all[min(level, len(all)-1)]
}

// place is where a message was published, and what has become of it since.
type place struct {
	partition   int
	offset      int64
	attempts    int
	retries     int // how often it went to a retry topic because it failed
	firstFailed string
	turn        bool      // it has a place in its key's queue (headerTurn)
	due         time.Time // zero: at once
}

// returned makes a message of a retry topic what it was in its own topic, and reads what it has been through. What is
// not there, or nonsense, is left at what the copy itself tells: nobody but this group writes there.
func (rt *retryTopic) returned(m *outbox.Message, partition int, offset int64, now time.Time) place {
	p := place{partition: partition, offset: offset, firstFailed: m.Headers[HeaderFirstFailed]}
	p.turn = m.Headers[headerTurn] != ""
	m.Topic = rt.origin
	restoreCreated(m)
	if n, err := strconv.Atoi(m.Headers[HeaderAttempts]); err == nil {
		p.attempts = max(0, n)
	}
	p.retries = rt.level + 1 // unless it tells
	if n, err := strconv.Atoi(m.Headers[headerRetries]); err == nil {
		p.retries = max(0, n)
	}
	if n, err := strconv.Atoi(m.Headers[HeaderPartition]); err == nil {
		p.partition = n
	}
	if n, err := strconv.ParseInt(m.Headers[HeaderOffset], 10, 64); err == nil {
		p.offset = n
	}
	if at, err := time.Parse(time.RFC3339Nano, m.Headers[HeaderRetryAt]); err == nil {
		if latest := now.Add(rt.delay); at.After(latest) { // another machine's clock is ahead
			at = latest
		}
		p.due = at
	}
	return p
}

// restoreCreated gives a copy the time of its original.
func restoreCreated(m *outbox.Message) {
	if at, err := time.Parse(time.RFC3339Nano, m.Headers[HeaderCreated]); err == nil {
		m.CreatedAt = at
	}
}

// copyOf is a message to be published elsewhere, with headers that tell what it has been through.
func (g *generation) copyOf(it *item, attempts int, why error) outbox.Message {
	m := it.message
	m.Headers = maps.Clone(it.message.Headers)
	if m.Headers == nil {
		m.Headers = map[string]string{}
	}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	delete(m.Headers, HeaderRetryAt)
	if why != nil {
		m.Headers[HeaderError] = cut(why)
		m.Headers[HeaderFailed] = now
		m.Headers[HeaderFirstFailed] = it.place.firstFailed
		if it.place.firstFailed == "" {
			m.Headers[HeaderFirstFailed] = now
		}
	}
	m.Headers[HeaderAttempts] = strconv.Itoa(attempts)
	m.Headers[HeaderGroup] = g.c.group
	m.Headers[HeaderTopic] = m.Topic
	m.Headers[HeaderPartition] = strconv.Itoa(it.place.partition)
	m.Headers[HeaderOffset] = strconv.FormatInt(it.place.offset, 10)
	if !m.CreatedAt.IsZero() {
		m.Headers[HeaderCreated] = m.CreatedAt.UTC().Format(time.RFC3339Nano)
	}
	m.CreatedAt = time.Time{} // retention counts from now
	return m
}

// cut makes an error fit for a header.
func cut(why error) string {
	text := strings.ToValidUTF8(why.Error(), "?")
	if len(text) > maxDeadError {
		text = strings.ToValidUTF8(text[:maxDeadError], "") + "… (cut)"
	}
	return text
}
