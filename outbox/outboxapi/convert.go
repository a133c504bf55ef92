package outboxapi

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"

	"github.com/amends-dev/amends/outbox"
)

func statusOf(s *outbox.Status) *amendsv1.GetOutboxResponse {
	resp := &amendsv1.GetOutboxResponse{
		Messages: s.Rows, OldestAge: age(s.Oldest, s.Rows), DeadLetters: s.Dead, BlockedKeys: int64(s.Blocked),
		DelayedMessages: s.Delayed, ParkedMessages: s.Parked,
	}
	for _, t := range s.Topics {
		resp.Topics = append(resp.Topics, &amendsv1.OutboxTopic{Topic: t.Topic, Messages: t.Rows, OldestAge: age(t.Oldest, t.Rows)})
	}
	for i, p := range s.Partitions {
		resp.Partitions = append(resp.Partitions, &amendsv1.OutboxPartition{
			Partition: int32(i), Messages: p.Rows, OldestAge: age(p.Oldest, p.Rows),
			Owner: amendsv1.ValidText(p.Owner), Epoch: p.Epoch, LeaseLeft: durationpb.New(p.LeaseLeft),
		})
	}
	return resp
}

// age is absent where nothing waits.
func age(d time.Duration, rows int64) *durationpb.Duration {
	if rows == 0 {
		return nil
	}
	return durationpb.New(max(0, d))
}

// instant is absent for the zero time.
func instant(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func messageOf(w *outbox.Waiting) *amendsv1.OutboxMessage {
	m := &w.Message
	return &amendsv1.OutboxMessage{
		Position: w.Position.String(), Id: amendsv1.ValidText(m.ID), Topic: amendsv1.ValidText(m.Topic), Key: amendsv1.ValidText(m.Key),
		Size: int64(w.Size), IdempotencyKey: amendsv1.ValidText(m.IdempotencyKey), CreateTime: timestamppb.New(m.CreatedAt),
		NotBefore: instant(m.NotBefore),
	}
}

func deadOf(d *outbox.Dead, whole bool) *amendsv1.DeadLetter {
	m := &d.Message
	out := &amendsv1.DeadLetter{
		Number: d.Number, Id: amendsv1.ValidText(m.ID), Topic: amendsv1.ValidText(m.Topic), Key: amendsv1.ValidText(m.Key),
		Size: int64(d.Size), IdempotencyKey: amendsv1.ValidText(m.IdempotencyKey), CreateTime: timestamppb.New(m.CreatedAt),
		FailTime: instant(d.FailedAt), Attempts: int32(d.Attempts), Error: amendsv1.ValidText(d.Error), Parked: d.Parked,
	}
	if !whole {
		return out
	}
	out.Body = m.Body
	out.Headers = make(map[string]string, len(m.Headers))
	for name, value := range m.Headers {
		out.Headers[amendsv1.ValidText(name)] = amendsv1.ValidText(value)
	}
	return out
}

func blockedOf(b *outbox.Blocked) *amendsv1.BlockedKey {
	return &amendsv1.BlockedKey{
		Key: amendsv1.ValidText(b.Key), Position: b.Position.String(), Id: amendsv1.ValidText(b.ID), Topic: amendsv1.ValidText(b.Topic),
		Attempts: int32(b.Attempts), Error: amendsv1.ValidText(b.Error), Poison: b.Poison, Messages: b.Rows,
		BlockTime: timestamppb.New(b.Since), RetryTime: instant(b.RetryAt), Partition: int32(b.Position.Partition),
	}
}

func actOf(a *outbox.Act) *amendsv1.OutboxAct {
	out := &amendsv1.OutboxAct{
		Number: a.Number, Verb: verbOf(a.Verb), Actor: amendsv1.ValidText(a.Actor), Reason: amendsv1.ValidText(a.Reason),
		RequestId: amendsv1.ValidText(a.RequestID), Target: amendsv1.ValidText(a.Target), Messages: a.Messages, More: a.More,
		ActTime: instant(a.At),
	}
	for _, id := range a.IDs {
		out.MessageIds = append(out.MessageIds, amendsv1.ValidText(id))
	}
	return out
}

func verbOf(v outbox.Verb) amendsv1.OutboxVerb {
	switch v {
	case outbox.VerbReplay:
		return amendsv1.OutboxVerb_OUTBOX_VERB_REPLAY
	case outbox.VerbDiscard:
		return amendsv1.OutboxVerb_OUTBOX_VERB_DISCARD
	case outbox.VerbSkip:
		return amendsv1.OutboxVerb_OUTBOX_VERB_SKIP
	case outbox.VerbPark:
		return amendsv1.OutboxVerb_OUTBOX_VERB_PARK
	}
	return amendsv1.OutboxVerb_OUTBOX_VERB_UNSPECIFIED // of a newer version
}

func pageSize(n int32) (int, error) {
	switch {
	case n < 0 || n > maxPage:
		return 0, amendsv1.ErrInvalidArgument.With("page_size is %d: use 1 to %d, or 0 for %d", n, maxPage, defaultPage)
	case n == 0:
		return defaultPage, nil
	}
	return int(n), nil
}

// A page token is the position or number of the last entry of the page before.
func positionToken(token string) (outbox.Position, error) {
	if token == "" {
		return outbox.Position{}, nil
	}
	at, err := outbox.ParsePosition(token)
	if err != nil {
		return at, amendsv1.ErrPageToken.With("page_token %q is not one of ours", token)
	}
	return at, nil
}

func numberToken(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(token, 10, 64)
	if err != nil || n <= 0 || tokenOf(n) != token {
		return 0, amendsv1.ErrPageToken.With("page_token %q is not one of ours", token)
	}
	return n, nil
}

func tokenOf(n int64) string { return strconv.FormatInt(n, 10) }

func position(s string) (outbox.Position, error) {
	at, err := outbox.ParsePosition(s)
	if err != nil {
		return at, amendsv1.ErrInvalidArgument.With("position %q is not a position: they look like 2-1071 or 2+17", s)
	}
	return at, nil
}
