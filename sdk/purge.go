package sdk

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Defaults and limits of PurgeConfig.
const (
	DefaultPurgeAfter        = 72 * time.Hour
	DefaultPurgeUnknownAfter = 30 * 24 * time.Hour
	DefaultPurgeInterval     = time.Hour
	minPurgeAfter            = time.Hour
	minPurgeInterval         = time.Minute
)

// How a purge goes about it.
const (
	purgePage    = 500 // claims at a time, and so at most as many gids
	purgeRest    = 3   // it rests for so many times as long as a page took
	purgeMinRest = 10 * time.Millisecond
	purgeTimeout = 30 * time.Second // of a page
	purgeAgain   = 24               // each so many rounds it asks again about all that it kept
)

// PurgeConfig says when a participant deletes the guard's claims, the rows of
// amends_inbox. A nil *PurgeConfig is all defaults.
//
// Age alone decides nothing: the undo of a transaction that waits for a person
// has to find the claim of its do, also after months. So the participant asks
// every coordinator that it attends to, and deletes the claims of transactions
// that ended. It looks at claims of its own namespace, in pages, and rests for
// three quarters of the time. Any number of instances may do so.
//
// It supposes that whoever calls for transactions of this namespace, with claims
// in this database, is among the coordinators given to Run. Where one of them is
// not reached, or too old to be asked, nothing is deleted.
type PurgeConfig struct {
	// After is how long ago a transaction has ended, by the coordinator's clock,
	// and how old a claim is, by the database's, before it is deleted; 0: 72 h,
	// at least 1 h; negative: nothing is ever deleted. A call that is under way
	// for longer finds nothing, and takes effect again; and so do the calls of a
	// coordinator that was restored from a backup which is older. Let it be less
	// than the coordinator's retention, after which ended transactions are unknown.
	After time.Duration
	// UnknownAfter is how old a claim is before it is deleted although no
	// coordinator knows the transaction, because it was purged there or lost; 0: 30
	// days, not less than After; negative: such claims are kept for good. They are
	// also kept while a coordinator knows none of the others: it may be another
	// one than before.
	UnknownAfter time.Duration
	Interval     time.Duration // between rounds, of which the first comes within one; 0: 1 h, at least 1 min
}

func (c *PurgeConfig) withDefaults() (PurgeConfig, error) {
	var cfg PurgeConfig
	if c != nil {
		cfg = *c
	}
	if cfg.After == 0 {
		cfg.After = DefaultPurgeAfter
	}
	if cfg.UnknownAfter == 0 {
		cfg.UnknownAfter = max(DefaultPurgeUnknownAfter, cfg.After)
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultPurgeInterval
	}
	var errs []error
	if cfg.After > 0 && cfg.After < minPurgeAfter {
		errs = append(errs, fmt.Errorf("Purge.After is %s, want 0 (72 h), 1 h or more, or a negative one (never)", cfg.After))
	}
	if cfg.UnknownAfter > 0 && cfg.UnknownAfter < cfg.After {
		errs = append(errs, fmt.Errorf("Purge.UnknownAfter is %s, want 0 (30 days), After (%s) or more, or a negative one (never)",
			cfg.UnknownAfter, cfg.After))
	}
	if cfg.Interval < minPurgeInterval {
		errs = append(errs, fmt.Errorf("Purge.Interval is %s, want 0 (1 h) or 1 min or more", cfg.Interval))
	}
	return cfg, errors.Join(errs...)
}

// purge deletes the guard's claims of transactions that have ended. It belongs to
// one Run.
type purge struct {
	cfg       PurgeConfig
	guard     *guard
	namespace string
	instance  string
	ask       []*informant // all whose calls the guard may have seen
	log       *slog.Logger

	behind  inbox.OldClaim // where the next page begins
	rounds  int
	doubted bool // claims were kept, since the table was last gone through, because nobody vouched for a coordinator
	said    struct{ tooOld, doubt bool }
}

// newPurge returns nil where there is nothing to do.
func (p *Participant) newPurge(conns []grpc.ClientConnInterface) *purge {
	if p.guard.db == nil || p.purging.After < 0 {
		return nil
	}
	own := &purge{cfg: p.purging, guard: &p.guard, namespace: p.cfg.Namespace, instance: p.cfg.Instance, log: p.log}
	for _, conn := range conns {
		own.ask = append(own.ask, &informant{rpc: amendsv1.NewTransactionServiceClient(inNamespace(conn, p.cfg.Namespace))})
	}
	return own
}

// run purges until ctx ends. Its trouble is no reason for anything else to end.
func (p *purge) run(ctx context.Context) error {
	spread := fnv.New32a()                  // by name, so that instances which start together do not all ask at once
	_, _ = spread.Write([]byte(p.instance)) // never fails
	wait := p.cfg.Interval/2 + time.Duration(float64(p.cfg.Interval/2)*float64(spread.Sum32())/(1<<32))
	for sleep(ctx, wait) {
		purged, err := p.round(ctx)
		p.report(ctx, purged, err)
		wait = p.cfg.Interval
	}
	return nil
}

// purged is how many claims a round has deleted.
type purged struct{ ended, unknown int }

func (p *purge) report(ctx context.Context, n purged, err error) {
	if n.ended+n.unknown > 0 {
		p.log.InfoContext(ctx, "sdk: purged the guard's claims of transactions that have ended",
			"claims", n.ended+n.unknown, "of_unknown_transactions", n.unknown)
	}
	if p.doubted && !p.said.doubt {
		p.said.doubt = true
		p.log.WarnContext(ctx, "sdk: a coordinator knows none of the transactions whose claims are old: they are kept. "+
			"Is it the one that made the calls, and is this their namespace?", "namespace", p.namespace)
	}
	switch {
	case err == nil || ctx.Err() != nil:
	case status.Code(err) != codes.Unimplemented:
		p.log.WarnContext(ctx, "sdk: cannot purge the guard's claims, trying again", "err", err, "wait", p.cfg.Interval)
	case !p.said.tooOld:
		p.said.tooOld = true
		p.log.InfoContext(ctx, "sdk: a coordinator is too old to say which transactions have ended: "+
			"the guard's claims are kept until it is upgraded", "err", err)
	}
}

// round deletes what may go of the claims that have become old since the last
// round, and now and then of those that were kept in earlier ones.
func (p *purge) round(ctx context.Context) (sum purged, err error) {
	if p.rounds%purgeAgain == 0 || p.doubted && p.vouched() {
		p.behind, p.doubted = inbox.OldClaim{}, false
	}
	p.rounds++
	for {
		began := time.Now()
		page, n, err := p.page(ctx)
		sum.ended += n.ended
		sum.unknown += n.unknown
		if err != nil || len(page) == 0 {
			return sum, err
		}
		p.behind = page[len(page)-1]
		if len(page) < purgePage || !sleep(ctx, max(purgeMinRest, purgeRest*time.Since(began))) {
			return sum, nil
		}
	}
}

// page reads the next old claims and deletes what may go of them.
func (p *purge) page(ctx context.Context) (claims []inbox.OldClaim, n purged, err error) {
	ctx, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	claims, err = inbox.OldClaims(ctx, p.guard.db, p.guard.dialect, p.cfg.After, p.behind, purgePage)
	if err != nil {
		return nil, n, err
	}
	var gids []string // in the order of their first claims, each once
	of := map[string][]inbox.OldClaim{}
	for _, c := range claims {
		gid, ok := guardsGID(c.Key, p.namespace)
		if !ok {
			continue
		}
		if of[gid] == nil {
			gids = append(gids, gid)
		}
		of[gid] = append(of[gid], c)
	}
	if len(gids) == 0 {
		return claims, n, nil
	}
	fates, err := p.fates(ctx, gids)
	if err != nil {
		return nil, n, err
	}
	ended, unknown := p.sort(of, fates)
	if n.ended, err = p.guard.forget(ctx, p.cfg.After, ended); err == nil {
		n.unknown, err = p.guard.forget(ctx, p.cfg.UnknownAfter, unknown)
	}
	return claims, n, err
}

// sort picks the claims that may go.
func (p *purge) sort(claims map[string][]inbox.OldClaim, fates map[string]fate) (ended, unknown []string) {
	for gid, all := range claims {
		for _, c := range all {
			old := p.cfg.UnknownAfter > 0 && c.Age >= p.cfg.UnknownAfter
			switch f := fates[gid]; {
			case f == fateEnded:
				ended = append(ended, c.Key)
			case f == fateUnknown && old:
				unknown = append(unknown, c.Key)
			case f == fateDoubtful && old:
				p.doubted = true
			}
		}
	}
	return ended, unknown
}

// forget deletes claims that are older than an age.
func (g *guard) forget(ctx context.Context, age time.Duration, keys []string) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	release, err := g.takeTurn(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	return inbox.ForgetClaims(ctx, g.db, g.dialect, age, keys)
}

// guardsGID is the transaction of a claim that the guard of a namespace made;
// false for the claims of anybody else. See CallInfo.key.
func guardsGID(key, namespace string) (gid string, ok bool) {
	words := strings.Split(key, " ")
	if namespace != "" {
		if words[0] != namespace {
			return "", false
		}
		words = words[1:]
	}
	if len(words) != 3 || txn.CheckName("gid", words[0]) != nil || txn.CheckName("branch", words[1]) != nil {
		return "", false
	}
	switch words[2] {
	case txn.Do.String(), txn.Try.String(), endKey:
		return words[0], true
	}
	return "", false
}
