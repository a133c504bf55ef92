package engine

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// standing is a member as the balance sees it.
type standing struct {
	name  string
	holds int  // shards
	takes bool // else it drains, and is to have none
}

// gift is a number of shards for a member.
type gift struct {
	to     string
	shards int
}

// gifts returns what self is to give away so that those who take have the same
// number of shards, give or take one, by as few moves as will do. All members
// come to the same plan from the same standings, of which each carries out its
// part.
func gifts(all []standing, self string) []gift {
	goals := goalsOf(all)
	var mine []gift
	givers := slices.SortedFunc(slices.Values(all), byLoad)
	takers := slices.Clone(givers)
	slices.Reverse(takers)
	for _, from := range givers {
		surplus := from.holds - goals[from.name]
		for i := range takers {
			to := &takers[i]
			n := min(surplus, goals[to.name]-to.holds)
			if n <= 0 {
				continue
			}
			to.holds += n
			surplus -= n
			if from.name == self {
				mine = append(mine, gift{to.name, n})
			}
		}
	}
	return mine
}

// goalsOf is how many shards each is to have: who has most has one more, if the
// number does not divide. Without anybody who takes, all keep what they have.
func goalsOf(all []standing) map[string]int {
	goals := make(map[string]int, len(all))
	total, takers := 0, 0
	for _, s := range all {
		goals[s.name] = s.holds
		total += s.holds
		if s.takes {
			takers++
		}
	}
	if takers == 0 {
		return goals
	}
	extra := total % takers
	for _, s := range slices.SortedFunc(slices.Values(all), byLoad) {
		if goals[s.name] = 0; !s.takes {
			continue
		}
		goals[s.name] = total / takers
		if extra > 0 {
			goals[s.name]++
			extra--
		}
	}
	return goals
}

// byLoad: who has most comes first.
func byLoad(a, b standing) int {
	return cmp.Or(cmp.Compare(b.holds, a.holds), strings.Compare(a.name, b.name))
}

// balance has shards given away of which we have more than our share. The lock
// is held.
func (e *Engine) balance() {
	all := e.standings(time.Now())
	goal, hungry := goalsOf(all)[e.cfg.Owner], false
	for _, s := range all {
		hungry = hungry || s.name == e.cfg.Owner && s.holds < goal
	}
	next := *e.cluster.chart.Load()
	next.hungry = hungry
	e.cluster.chart.Store(&next)
	if mine := gifts(all, e.cfg.Owner); len(mine) > 0 {
		select {
		case e.cluster.moves <- mine:
		default: // still at the last ones
		}
	}
}

// standings is who takes part in the balance: members that drain, and those
// that take and have been there for half of LeaseTTL without a gap, so that
// shards do not follow one that comes and goes. When we drain and nobody else
// is there, any other will do. The lock is held.
func (e *Engine) standings(now time.Time) []standing {
	c := e.cluster.chart.Load()
	holds := map[string]int{}
	for i := range c.holdings {
		if h := &c.holdings[i]; !c.free(h, now) {
			holds[h.Owner]++
		}
	}
	var settled, recent []standing
	takers := 0
	for _, m := range c.members {
		s := standing{m.Name, holds[m.Name], !m.Draining}
		late := m.ExpiresAt.Before(now.Add(c.ahead + e.cfg.LeaseTTL/2)) // it missed two renewals, at least
		switch {
		case s.takes && m.Name != e.cfg.Owner && (late || now.Sub(e.cluster.known[lifeOf(m)]) < e.cfg.LeaseTTL/2):
			if !late {
				recent = append(recent, s)
			}
			continue
		case s.takes:
			takers++
		}
		settled = append(settled, s)
	}
	if takers == 0 {
		settled = append(settled, recent...)
	}
	return settled
}
