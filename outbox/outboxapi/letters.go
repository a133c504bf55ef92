package outboxapi

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"

	"github.com/amends-dev/amends/outbox/inbox"
)

// Letters implements amendsv1.OutboxServiceServer for what consumers of one topic gave up: its dead letters are those of
// the topic in Kafka, to replay is to requeue them there, and of the rest of an outbox there is nothing. Discard, skip and
// park are UNIMPLEMENTED: a letter stays in its topic until that one's retention ends, and is not listed any more once it
// was requeued. Safe for concurrent use.
//
// A number is a letter's place, see LetterNumber. A request that comes again does nothing more, whatever its request_id,
// as what was requeued is passed over; its answer counts what it did itself.
type Letters struct {
	amendsv1.UnimplementedOutboxServiceServer
	dead *inbox.DeadLetters
	cfg  Config
}

// NewLetters makes a server of the dead letters; the caller closes them. A nil cfg is the zero Config.
func NewLetters(dead *inbox.DeadLetters, cfg *Config) *Letters {
	return &Letters{dead: dead, cfg: New(nil, cfg).cfg}
}

// lettersPartitions are so many that a number has room for; a topic with more is not served whole.
const (
	lettersBits       = 12
	lettersPartitions = 1 << lettersBits
	countedLetters    = 1000
)

// LetterNumber is the number of the dead letter at a partition, below 4096, and an offset.
func LetterNumber(partition int, offset int64) int64 {
	return (offset<<lettersBits | int64(partition)) + 1
}

func letterPlace(number int64) (partition int, offset int64) {
	return int((number - 1) % lettersPartitions), (number - 1) >> lettersBits
}

// GetOutbox implements OutboxService: it counts up to 1000 dead letters.
func (s *Letters) GetOutbox(ctx context.Context, _ *amendsv1.GetOutboxRequest) (*amendsv1.GetOutboxResponse, error) {
	found, _, err := s.dead.List(ctx, inbox.DeadLetterQuery{Limit: countedLetters})
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &amendsv1.GetOutboxResponse{DeadLetters: int64(len(found))}, nil
}

// ListDeadLetters implements OutboxService, in the order in which they were given up.
func (s *Letters) ListDeadLetters(
	ctx context.Context, r *amendsv1.ListDeadLettersRequest,
) (*amendsv1.ListDeadLettersResponse, error) {
	limit, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	resp := &amendsv1.ListDeadLettersResponse{}
	if r.GetTopic() != "" && r.GetTopic() != s.dead.Topic() {
		return resp, nil
	}
	q := inbox.DeadLetterQuery{DeadLetterFilter: inbox.DeadLetterFilter{Key: r.GetKey()}, Limit: limit, Page: r.GetPageToken()}
	found, next, err := s.dead.List(ctx, q)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	resp.NextPageToken = next
	for i := range found {
		resp.DeadLetters = append(resp.DeadLetters, letterOf(&found[i], false))
	}
	return resp, nil
}

// GetDeadLetter implements OutboxService. Its headers tell the group, and where the message was.
func (s *Letters) GetDeadLetter(ctx context.Context, r *amendsv1.GetDeadLetterRequest) (*amendsv1.GetDeadLetterResponse, error) {
	if r.GetNumber() <= 0 {
		return nil, amendsv1.ErrNotFound.With("there is no dead letter %d", r.GetNumber())
	}
	partition, offset := letterPlace(r.GetNumber())
	found, err := s.dead.Get(ctx, partition, offset)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &amendsv1.GetDeadLetterResponse{DeadLetter: letterOf(&found, true)}, nil
}

// ReplayDeadLetters implements OutboxService: it requeues them. Numbers are requeued one by one; after an error, those
// before it are.
func (s *Letters) ReplayDeadLetters(
	ctx context.Context, r *amendsv1.ReplayDeadLettersRequest,
) (*amendsv1.ReplayDeadLettersResponse, error) {
	all, target, err := s.picked(r)
	if err != nil {
		return nil, err
	}
	actor := cmp.Or(s.cfg.Actor(ctx), "anonymous")
	act := &amendsv1.OutboxAct{
		Verb: amendsv1.OutboxVerb_OUTBOX_VERB_REPLAY, Actor: amendsv1.ValidText(actor), Reason: r.GetReason(),
		RequestId: r.GetRequestId(), Target: amendsv1.ValidText(target), ActTime: instant(time.Now()),
	}
	left := 0
	for _, req := range all {
		req.Actor, req.Reason, req.DryRun = actor, r.GetReason(), r.GetValidateOnly()
		res, err := s.dead.Requeue(ctx, req)
		act.Messages += int64(res.Requeued)
		if left += res.Left; err != nil {
			return nil, s.fail(ctx, err)
		}
	}
	if act.GetMessages() == 0 && left > 0 {
		return nil, amendsv1.ErrIllegalVerb.With("%d dead letters have no body: it was too large to be kept, "+
			"and is where the message was published, if anywhere", left)
	}
	if !r.GetValidateOnly() {
		s.cfg.Logger.InfoContext(ctx, "outboxapi: requeued", "topic", s.dead.Topic(), "target", target,
			"messages", act.GetMessages(), "actor", actor, "reason", r.GetReason(), "request_id", r.GetRequestId())
	}
	return &amendsv1.ReplayDeadLettersResponse{Act: act}, nil
}

// picked are the requests that pick what r does, and words for it.
func (s *Letters) picked(r *amendsv1.ReplayDeadLettersRequest) (all []inbox.RequeueRequest, target string, err error) {
	if r.GetReason() == "" {
		return nil, "", amendsv1.ErrInvalidArgument.With("reason is missing: say why, for the record")
	}
	byFilter := r.GetTopic() != "" || r.GetKey() != ""
	switch {
	case (len(r.GetNumbers()) > 0) == byFilter:
		return nil, "", amendsv1.ErrInvalidArgument.With("say which dead letters: give numbers, or topic and key")
	case len(r.GetNumbers()) > maxPage:
		return nil, "", amendsv1.ErrInvalidArgument.With("%d numbers: give at most %d", len(r.GetNumbers()), maxPage)
	case r.GetTopic() != "" && r.GetTopic() != s.dead.Topic():
		return nil, "", amendsv1.ErrInvalidArgument.With("topic is %q: these are the dead letters of %q", r.GetTopic(), s.dead.Topic())
	case byFilter:
		filter := inbox.DeadLetterFilter{Key: r.GetKey()}
		return []inbox.RequeueRequest{{DeadLetterFilter: filter, All: true, Offset: -1}}, "topic " + s.dead.Topic() + " key " + r.GetKey(), nil
	}
	target = "numbers"
	for _, n := range r.GetNumbers() {
		if n <= 0 {
			return nil, "", amendsv1.ErrNotFound.With("there is no dead letter %d", n)
		}
		partition, offset := letterPlace(n)
		all = append(all, inbox.RequeueRequest{Partition: partition, Offset: offset})
		target += " " + tokenOf(n)
	}
	return all, target, nil
}

// ListMessages implements OutboxService: none wait.
func (s *Letters) ListMessages(context.Context, *amendsv1.ListMessagesRequest) (*amendsv1.ListMessagesResponse, error) {
	return &amendsv1.ListMessagesResponse{}, nil
}

// ListBlockedKeys implements OutboxService: none are blocked.
func (s *Letters) ListBlockedKeys(context.Context, *amendsv1.ListBlockedKeysRequest) (*amendsv1.ListBlockedKeysResponse, error) {
	return &amendsv1.ListBlockedKeysResponse{}, nil
}

// ListOutboxActs implements OutboxService: what was requeued is recorded in a topic, which is not read here.
func (s *Letters) ListOutboxActs(context.Context, *amendsv1.ListOutboxActsRequest) (*amendsv1.ListOutboxActsResponse, error) {
	return &amendsv1.ListOutboxActsResponse{}, nil
}

// fail turns an error into what callers see.
func (s *Letters) fail(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, inbox.ErrNoDeadLetter):
		return amendsv1.ErrNotFound.With("%v", err)
	case errors.Is(err, inbox.ErrDeadLetterPage):
		return amendsv1.ErrPageToken.With("%v", err)
	}
	s.cfg.Logger.ErrorContext(ctx, "outboxapi: dead letters", "topic", s.dead.Topic(), "error", err)
	return amendsv1.ErrUnavailable.With("Kafka cannot serve the dead letters just now: see the log")
}

func letterOf(l *inbox.DeadLetter, whole bool) *amendsv1.DeadLetter {
	m := &l.Message
	out := &amendsv1.DeadLetter{
		Number: LetterNumber(l.Partition, l.Offset), Id: amendsv1.ValidText(m.ID), Topic: amendsv1.ValidText(m.Topic),
		Key: amendsv1.ValidText(m.Key), Size: int64(l.Size), CreateTime: instant(m.CreatedAt), FailTime: instant(l.Failed),
		Attempts: int32(min(l.Attempts, 1<<30)), Error: amendsv1.ValidText(l.Error),
	}
	if !whole {
		return out
	}
	out.Body = m.Body
	out.Headers = map[string]string{
		inbox.HeaderGroup: amendsv1.ValidText(l.Group), inbox.HeaderPartition: strconv.Itoa(l.OriginPartition),
		inbox.HeaderOffset: strconv.FormatInt(l.OriginOffset, 10),
	}
	if l.BodyLeftOut {
		out.Headers[inbox.HeaderBody] = "left out: it was too large"
	}
	if q := l.Requeued; q != nil {
		out.Headers[inbox.HeaderRequeued] = amendsv1.ValidText(q.At.UTC().Format(time.RFC3339) + " by " + q.Actor + ": " + q.Reason)
	}
	for name, value := range m.Headers {
		out.Headers[amendsv1.ValidText(name)] = amendsv1.ValidText(value)
	}
	return out
}

var _ amendsv1.OutboxServiceServer = (*Letters)(nil)
