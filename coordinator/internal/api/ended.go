package api

import (
	"context"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"golang.org/x/sync/errgroup"
)

const (
	maxGIDs = 1000 // of a FindEnded
	lookups = 16   // of them that are looked up at once: those who start and wait load from the same store
)

// ending is what FindEnded tells of a transaction.
type ending int

const (
	notEnded ending = iota // or not long enough ago
	hasEnded
	isUnknown
)

// FindEnded tells which transactions have ended, and which are not known. It asks
// the store, so any member can answer: what has ended there stays so.
func (t *transactions) FindEnded(ctx context.Context, req *amendsv1.FindEndedRequest) (
	*amendsv1.FindEndedResponse, error) {
	resp, err := t.findEnded(ctx, req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return resp, nil
}

func (t *transactions) findEnded(ctx context.Context, req *amendsv1.FindEndedRequest) (
	*amendsv1.FindEndedResponse, error) {
	namespace, err := t.namespace(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkFindEnded(req); err != nil {
		return nil, err
	}
	until := time.Now().Add(-req.GetEndedFor().AsDuration())
	gids := req.GetGids()
	endings := make([]ending, len(gids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, gid := range gids {
		g.Go(func() (err error) {
			endings[i], err = t.ending(gctx, wire.Key(namespace, gid), until)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	resp := &amendsv1.FindEndedResponse{}
	for i, gid := range gids {
		switch endings[i] {
		case hasEnded:
			resp.Ended = append(resp.Ended, gid)
		case isUnknown:
			resp.Unknown = append(resp.Unknown, gid)
		}
	}
	return resp, nil
}

func checkFindEnded(req *amendsv1.FindEndedRequest) error {
	if n := len(req.GetGids()); n > maxGIDs {
		return amendsv1.ErrInvalidArgument.With("%d gids, at most %d are allowed: ask more than once", n, maxGIDs).
			WithMetadata("field", "gids")
	}
	if d := req.GetEndedFor(); d != nil && (d.CheckValid() != nil || d.AsDuration() < 0) {
		return amendsv1.ErrInvalidArgument.With("ended_for is %v: it must be a duration of 0 or more", d).
			WithMetadata("field", "ended_for")
	}
	for _, gid := range req.GetGids() {
		if err := checkGID(gid); err != nil {
			return err
		}
	}
	return nil
}

// ending says whether a transaction had ended by a time.
func (s *Server) ending(ctx context.Context, key string, until time.Time) (ending, error) {
	switch rec, err := s.store.Load(ctx, key); {
	case errors.Is(err, store.ErrNotFound):
		return isUnknown, nil
	case err != nil:
		return notEnded, err
	case txn.State(rec.State).Finished() && !rec.FinishedAt.IsZero() && !rec.FinishedAt.After(until):
		return hasEnded, nil
	}
	return notEnded, nil
}
