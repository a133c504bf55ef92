package sdk

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Member is a coordinator as a Cluster sees it.
type Member struct {
	Name     string // empty: it is too old to say
	Address  string // where it says it is reached; empty: nowhere
	Version  string // of its program
	Draining bool   // it gives its transactions to the others; it still serves
	Reached  bool   // it answers us
}

// knownMember is one that a member told us of.
type knownMember struct {
	Member
	at time.Time // when we were told last
}

// hunt is the search for members behind the given addresses.
type hunt struct {
	turn   int // the given addresses take turns
	misses int // in a row
	next   time.Time
}

// Members returns the members that are known now, by name: those that any member
// named lately, and at least those that answer.
func (c *Cluster) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Member
	reached := map[string]bool{}
	for _, l := range c.links {
		if !l.up.Load() || !l.chosen {
			continue
		}
		if _, known := c.known[l.name]; !known {
			all = append(all, Member{Name: l.name, Address: l.address, Reached: true})
		}
		reached[l.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.known)) {
		m := c.known[name].Member
		m.Reached = reached[name]
		all = append(all, m)
	}
	return all
}

// heard notes what a poll brought, and reports whether that was news of who the
// members are.
func (c *Cluster) heard(l *link, members []*amendsv1.Member, err error) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.life.Err() != nil {
		return false
	}
	before := l.up.Load()
	news = l.hear(members, err)
	if l.up.Load() {
		c.learn(members)
	}
	c.report(l, before, err)
	if l.misses >= maxMisses {
		c.replace(l)
	}
	c.settle()
	c.publish()
	return news
}

// suspect takes a link out of use until it answers a poll again: a request found
// its connection broken.
func (c *Cluster) suspect(l *link, err error) {
	l.check()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !l.up.Load() || l.life.Err() != nil {
		return
	}
	l.up.Store(false)
	c.report(l, true, err)
	c.settle()
	c.publish()
}

// learn takes over a member's list, and forgets whom nobody has named for a
// while: lists differ for a moment when somebody comes or goes.
func (c *Cluster) learn(members []*amendsv1.Member) {
	if len(members) == 0 {
		return
	}
	now := time.Now()
	for _, m := range members {
		c.known[m.GetName()] = knownMember{at: now, Member: Member{
			Name: m.GetName(), Address: m.GetAddress(), Version: m.GetVersion(), Draining: m.GetDraining(),
		}}
	}
	for name, m := range c.known {
		if now.Sub(m.at) > max(2*c.cfg.PollInterval, time.Second) {
			delete(c.known, name)
			c.log.Info("sdk: a coordinator left the cluster", "coordinator", name, "address", m.Address)
		}
	}
}

// report logs a link that begins or ceases to answer, once.
func (c *Cluster) report(l *link, before bool, err error) {
	up := l.up.Load()
	if !up {
		c.failure = err
	}
	switch {
	case l.origin == hunted && !l.chosen:
	case up && !before:
		delete(c.silent, l.address)
		c.log.Info("sdk: a coordinator answers", "coordinator", l.name, "address", l.address)
	case !up && !c.silent[l.address]:
		c.silent[l.address] = true
		c.log.Warn("sdk: a coordinator cannot be reached", "coordinator", l.name, "address", l.address, "err", err)
	}
}

// settle decides by which link each member is reached, and looks for those that
// are reached by none. Called with mu held.
func (c *Cluster) settle() {
	if c.closed {
		return
	}
	reached := c.choose()
	for _, l := range slices.Clone(c.links) {
		if l.origin == hunted && l.chosen && !l.found {
			l.found = true
			c.hunt = hunt{turn: c.hunt.turn}
		}
		if l.origin != given && l.asked && c.needless(l, reached) {
			c.drop(l)
		}
	}
	lost := false
	for _, name := range slices.Sorted(maps.Keys(c.known)) {
		if m := c.known[name]; !reached[name] && !c.dial(m) {
			lost = true
		}
	}
	if lost {
		c.seek()
	}
}

// choose says which links are used and which members those reach: of two that
// lead to one member the more direct one. One that fails stays its member's until
// another one reaches it: a participant's stream on it may be well.
func (c *Cluster) choose() (reached map[string]bool) {
	slices.SortStableFunc(c.links, func(a, b *link) int { return directness(a) - directness(b) })
	reached = map[string]bool{}
	for _, l := range c.links {
		if l.up.Load() {
			l.chosen = !l.out && (l.name == "" || !reached[l.name])
			reached[l.name] = true
		}
	}
	for _, l := range c.links { // who is no member is better than nobody
		if l.out && l.up.Load() && !slices.ContainsFunc(c.links, (*link).serves) {
			l.chosen = true
		}
	}
	for _, l := range c.links {
		if !l.up.Load() {
			l.chosen = l.chosen && (l.name == "" || !reached[l.name])
		}
	}
	return reached
}

func directness(l *link) int {
	return slices.Index([]origin{advertised, hunted, given}, l.origin)
}

// needless reports a link of our own making that leads nowhere, or to whom
// another leads.
func (c *Cluster) needless(l *link, reached map[string]bool) bool {
	if l.up.Load() || l.origin == hunted {
		_, named := c.known[l.name]
		return !l.chosen || l.name != "" && !named
	}
	for name, m := range c.known {
		if m.Address == l.address && !reached[name] {
			return false
		}
	}
	return true
}

// dial makes sure that there is a link to a member's address, and reports false
// when that leads nowhere.
func (c *Cluster) dial(m knownMember) bool {
	if m.Address == "" {
		return false
	}
	for _, l := range c.links {
		if l.address == m.Address && l.origin != hunted {
			return !l.asked || l.up.Load() // up: it is another one's by now
		}
	}
	err := c.add(m.Address, advertised, m.Name)
	if err != nil && !c.silent[m.Address] {
		c.silent[m.Address] = true
		c.log.Warn("sdk: a coordinator cannot be dialled", "coordinator", m.Name, "address", m.Address, "err", err)
	}
	return err == nil
}

// seek connects once more to a given address that no member advertises: it may
// be a balancer, and somebody else behind it. One such search runs at a time, and
// each that finds nobody new delays the next, up to a minute.
func (c *Cluster) seek() {
	behind := slices.DeleteFunc(slices.Clone(c.given), func(address string) bool {
		for _, m := range c.known {
			if m.Address == address {
				return true
			}
		}
		return false
	})
	searching := slices.ContainsFunc(c.links, func(l *link) bool { return l.origin == hunted && !l.asked })
	if len(behind) == 0 || searching || time.Now().Before(c.hunt.next) {
		return
	}
	c.hunt.turn++
	c.hunt.misses++
	pace := txn.Retry{Initial: 50 * time.Millisecond, Cap: time.Minute}
	c.hunt.next = time.Now().Add(pace.Delay(c.hunt.misses, rand.Float64()))
	_ = c.add(behind[c.hunt.turn%len(behind)], hunted, "") // what could be dialled once can be again
}

// publish shows what holds now. Called with mu held.
func (c *Cluster) publish() {
	old := c.now.Load()
	v := &view{closed: c.closed, failure: c.failure, replaced: make(chan struct{})}
	var draining []*link
	for _, l := range c.links {
		if !l.chosen {
			continue
		}
		v.attend = append(v.attend, l)
		switch {
		case !l.up.Load():
		case c.known[l.name].Draining:
			draining = append(draining, l)
		default:
			v.ready = append(v.ready, l)
		}
	}
	if len(v.ready) == 0 {
		v.ready = draining
	}
	c.now.Store(v)
	close(old.replaced)
}

// replace gives up a connection that is silent, and what waits for its answers.
func (c *Cluster) replace(l *link) {
	c.drop(l)
	if l.origin == given {
		_ = c.add(l.address, given, "") // what could be dialled once can be again
	}
}

// drop takes a link away. What is under way on one that is well may end, a
// participant's stream above all. Called with mu held.
func (c *Cluster) drop(l *link) {
	c.links = slices.DeleteFunc(c.links, func(other *link) bool { return other == l })
	if l.up.Swap(false) && (l.origin != hunted || l.found) {
		l.closing = time.Now().Add(linger)
	}
	l.chosen = false
	l.end()
	if l.closing.IsZero() {
		_ = l.conn.Close() // its only error is that it is closed
	}
}
