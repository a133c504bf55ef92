package sdk

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// fate is what the coordinators say of a transaction. Of several of which each
// knows its own, the highest counts.
type fate int

const (
	fateUnknown  fate = iota // to coordinators that know others of the guard's
	fateDoubtful             // unknown to one that knows nothing of what the guard has done
	fateEnded
	fateLive // or it ended a short while ago
)

// informant is a coordinator, or a cluster of them, that is asked.
type informant struct {
	rpc amendsv1.TransactionServiceClient
	// witness is a transaction of the guard's that it knew when it was last asked,
	// and is asked about again: whoever still knows it is no stranger, to whom
	// all is unknown.
	witness string
}

// vouched reports whether each informant has known a transaction of the guard's.
func (p *purge) vouched() bool {
	for _, i := range p.ask {
		if i.witness == "" {
			return false
		}
	}
	return true
}

// fates asks everybody, who all have to answer.
func (p *purge) fates(ctx context.Context, gids []string) (map[string]fate, error) {
	all := make(map[string]fate, len(gids))
	for _, i := range p.ask {
		fates, err := i.fates(ctx, p.cfg, gids)
		if err != nil {
			return nil, fmt.Errorf("ask which transactions have ended: %w", err)
		}
		for _, gid := range gids {
			all[gid] = max(all[gid], fates[gid])
		}
	}
	return all, nil
}

func (i *informant) fates(ctx context.Context, cfg PurgeConfig, gids []string) (map[string]fate, error) {
	req := &amendsv1.FindEndedRequest{Gids: gids, EndedFor: durationpb.New(cfg.After)}
	if i.witness != "" {
		req.Gids = append([]string{i.witness}, gids...)
	}
	resp, err := i.rpc.FindEnded(ctx, req)
	if err != nil {
		return nil, fromError(err)
	}
	fates := map[string]fate{}
	for _, gid := range req.GetGids() {
		fates[gid] = fateLive
	}
	for _, gid := range resp.GetEnded() {
		fates[gid] = fateEnded
	}
	for _, gid := range resp.GetUnknown() {
		fates[gid] = fateDoubtful
	}
	known := ""
	for _, gid := range req.GetGids() { // the last is the one that it will know the longest
		if fates[gid] != fateDoubtful {
			known = gid
		}
	}
	if i.witness = known; known == "" {
		return fates, nil
	}
	for _, gid := range resp.GetUnknown() {
		fates[gid] = fateUnknown
	}
	return fates, nil
}
