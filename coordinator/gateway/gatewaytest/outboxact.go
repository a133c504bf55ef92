package gatewaytest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// asked is what every request to act has.
type asked interface {
	GetReason() string
	GetRequestId() string
	GetValidateOnly() bool
}

func (o *Outbox) act(ctx context.Context, verb amendsv1.OutboxVerb, target string, r asked, ids []string) (*amendsv1.OutboxAct, error) {
	if r.GetReason() == "" {
		return nil, amendsv1.ErrInvalidArgument.With("reason is empty: say why")
	}
	who, _ := ctx.Value(outboxCaller{}).(Caller)
	a := &amendsv1.OutboxAct{
		Verb: verb, Actor: who.Subject, Reason: r.GetReason(), RequestId: r.GetRequestId(), Target: target,
		Messages: int64(len(ids)), MessageIds: ids, ActTime: timestamppb.Now(),
	}
	if !r.GetValidateOnly() {
		a.Number = int64(len(o.acts) + 1)
		o.acts = append(o.acts, a)
	}
	return a, nil
}

// selection is what ReplayDeadLetters and DiscardDeadLetters select by.
type selection interface {
	asked
	GetNumbers() []int64
	GetTopic() string
	GetKey() string
}

func (o *Outbox) take(ctx context.Context, verb amendsv1.OutboxVerb, r selection) (act *amendsv1.OutboxAct, taken []*amendsv1.DeadLetter, err error) {
	taken = filtered(o.dead, r)
	target := r.GetTopic() + r.GetKey()
	if len(r.GetNumbers()) > 0 {
		target = "numbers " + strings.Trim(fmt.Sprint(r.GetNumbers()), "[]")
		taken = slices.DeleteFunc(slices.Clone(o.dead), func(d *amendsv1.DeadLetter) bool { return !slices.Contains(r.GetNumbers(), d.GetNumber()) })
	}
	if len(taken) == 0 || len(taken) < len(r.GetNumbers()) {
		return nil, nil, amendsv1.ErrNotFound.With("no such dead letters: %s", target)
	}
	var ids []string
	for _, d := range taken {
		ids = append(ids, d.GetId())
	}
	if act, err = o.act(ctx, verb, target, r, ids); err != nil || r.GetValidateOnly() {
		return act, nil, err
	}
	o.dead = slices.DeleteFunc(o.dead, func(d *amendsv1.DeadLetter) bool { return slices.Contains(taken, d) })
	return act, taken, nil
}

// ReplayDeadLetters implements OutboxService.
func (o *Outbox) ReplayDeadLetters(ctx context.Context, r *amendsv1.ReplayDeadLettersRequest) (*amendsv1.ReplayDeadLettersResponse, error) {
	act, taken, err := o.take(ctx, amendsv1.OutboxVerb_OUTBOX_VERB_REPLAY, r)
	for _, d := range taken {
		o.waiting = append(o.waiting, &amendsv1.OutboxMessage{
			Position: fmt.Sprintf("0-%d", 9000+d.GetNumber()), Id: d.GetId(), Topic: d.GetTopic(), Key: d.GetKey(), Size: d.GetSize(), CreateTime: d.GetCreateTime(),
		})
	}
	return &amendsv1.ReplayDeadLettersResponse{Act: act}, err
}

// DiscardDeadLetters implements OutboxService.
func (o *Outbox) DiscardDeadLetters(ctx context.Context, r *amendsv1.DiscardDeadLettersRequest) (*amendsv1.DiscardDeadLettersResponse, error) {
	act, _, err := o.take(ctx, amendsv1.OutboxVerb_OUTBOX_VERB_DISCARD, r)
	return &amendsv1.DiscardDeadLettersResponse{Act: act}, err
}

// give moves waiting messages to the dead letters, and says which.
func (o *Outbox) give(which func(*amendsv1.OutboxMessage) bool) (ids []string) {
	for _, m := range o.waiting {
		if which(m) {
			ids = append(ids, m.GetId())
			o.dead = append(o.dead, &amendsv1.DeadLetter{
				Number: int64(len(o.dead) + 1), Id: m.GetId(), Topic: m.GetTopic(), Key: m.GetKey(), Size: m.GetSize(),
				CreateTime: m.GetCreateTime(), FailTime: timestamppb.Now(), Error: "by hand",
			})
		}
	}
	o.waiting = slices.DeleteFunc(o.waiting, which)
	o.blocked = slices.DeleteFunc(o.blocked, func(b *amendsv1.BlockedKey) bool { return slices.Contains(ids, b.GetId()) })
	return ids
}

func (o *Outbox) at(position string) (*amendsv1.OutboxMessage, error) {
	for _, m := range o.waiting {
		if m.GetPosition() == position {
			return m, nil
		}
	}
	return nil, amendsv1.ErrNotFound.With("no message waits at position %s", position)
}

// SkipMessage implements OutboxService.
func (o *Outbox) SkipMessage(ctx context.Context, r *amendsv1.SkipMessageRequest) (*amendsv1.SkipMessageResponse, error) {
	m, err := o.at(r.GetPosition())
	if err != nil {
		return nil, err
	}
	act, err := o.act(ctx, amendsv1.OutboxVerb_OUTBOX_VERB_SKIP, "position "+r.GetPosition(), r, []string{m.GetId()})
	if err == nil && !r.GetValidateOnly() {
		o.give(func(w *amendsv1.OutboxMessage) bool { return w == m })
	}
	return &amendsv1.SkipMessageResponse{Act: act}, err
}

// ParkKey implements OutboxService.
func (o *Outbox) ParkKey(ctx context.Context, r *amendsv1.ParkKeyRequest) (*amendsv1.ParkKeyResponse, error) {
	key := r.GetKey()
	if r.GetPosition() != "" {
		m, err := o.at(r.GetPosition())
		if err != nil {
			return nil, err
		}
		key = m.GetKey()
	}
	act, err := o.act(ctx, amendsv1.OutboxVerb_OUTBOX_VERB_PARK, "key "+key, r, nil)
	if err == nil && !r.GetValidateOnly() {
		act.MessageIds = o.give(func(w *amendsv1.OutboxMessage) bool { return w.GetKey() == key })
		act.Messages = int64(len(act.GetMessageIds()))
	}
	return &amendsv1.ParkKeyResponse{Act: act}, err
}
