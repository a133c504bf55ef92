// Package check tells whether a shop did what it promised. It shares no code
// with the services: it reads their databases, the coordinator's and the topics
// in Kafka, when everything is at rest, and adds up for itself.
package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Shop says where a shop's traces are, and what it began with.
type Shop struct {
	Order, Inventory, Payment, Notification Database // of the services
	Coordinator                             Database

	Kafka   []string         // host:port
	Topics  Topics           // names of the topics
	Stock   map[string]int64 // pieces of each product at the beginning
	Balance int64            // cents on each account at the beginning
}

// Topics names what the shop tells the world.
type Topics struct{ Placed, Confirmed, Rejected string }

func (t Topics) all() []string { return []string{t.Placed, t.Confirmed, t.Rejected} }

// Figures is what a shop did.
type Figures struct {
	Orders      int            `json:"orders"`      // with a row in the order service
	Submissions int            `json:"submissions"` // of these orders; more than Orders if some were repeated
	Committed   int            `json:"committed"`   // sagas
	RolledBack  map[string]int `json:"rolled_back"` // sagas, by reason
	Written     int            `json:"written"`     // messages, into the outbox
	Published   int            `json:"published"`   // messages, in Kafka
	Handled     int            `json:"handled"`     // messages, by the notification service
	Suppressed  int            `json:"suppressed"`  // messages that came again and had no effect
	Rewarded    int            `json:"rewarded"`    // TCC transactions that confirmed
	Cancelled   map[string]int `json:"cancelled"`   // TCC transactions that cancelled, by reason
	Invariants  []Invariant    `json:"invariants"`
}

// Invariant is something that must hold.
type Invariant struct {
	Name     string   `json:"name"`
	Figures  string   `json:"figures"`
	Problems []string `json:"problems,omitempty"` // empty: it holds; at most maxProblems, and how many more
}

// Holds reports whether nothing is wrong.
func (i Invariant) Holds() bool { return len(i.Problems) == 0 }

// Run reads everything and judges. An error means that it could not.
func Run(ctx context.Context, s Shop) (*Figures, error) {
	b, err := load(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	f := count(b)
	for _, rule := range []func(*books) Invariant{money, stock, rewards, inBetween, handledOnce, noGhosts, auditChain} {
		f.Invariants = append(f.Invariants, rule(b))
	}
	return f, nil
}

// count takes the figures from the books, without judging them.
func count(b *books) *Figures {
	f := &Figures{Orders: len(b.orders), RolledBack: map[string]int{}, Cancelled: map[string]int{}}
	for _, o := range b.orders {
		f.Submissions += int(o.submitted)
		f.Written += int(o.submitted)
		if o.ended() {
			f.Written++
		}
	}
	for _, t := range b.transactions {
		switch {
		case t.kind == "tcc" && t.committed():
			f.Rewarded++
		case t.kind == "tcc" && t.rolledBack():
			f.Cancelled[t.why()]++
		case t.committed():
			f.Committed++
		case t.rolledBack():
			f.RolledBack[t.why()]++
		}
	}
	f.Published, f.Handled = len(b.log), len(b.mails)
	ids := map[string]bool{}
	for _, r := range b.log {
		ids[r.id] = true
	}
	f.Suppressed = f.Published - len(ids)
	return f
}

const maxProblems = 5

// verdict collects what is wrong with one invariant.
type verdict struct {
	problems []string
	more     int
}

func (v *verdict) wrong(format string, args ...any) {
	if len(v.problems) == maxProblems {
		v.more++
		return
	}
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

// must compares two sums.
func (v *verdict) must(what string, got, want int64) {
	if got != want {
		v.wrong("%s: %d, want %d", what, got, want)
	}
}

func (v *verdict) as(name, format string, args ...any) Invariant {
	slices.Sort(v.problems)
	if v.more > 0 {
		v.problems = append(v.problems, fmt.Sprintf("and %d more", v.more))
	}
	return Invariant{Name: name, Figures: fmt.Sprintf(format, args...), Problems: v.problems}
}

// cents prints an amount of money.
func cents(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	return fmt.Sprintf("%s%d.%02d", sign, n/100, n%100)
}

// why is the participant's own words of a reason, `step "charge": REFUSED: card
// declined`.
func (t transaction) why() string {
	if i := strings.LastIndex(t.reason, ": "); i >= 0 {
		return t.reason[i+2:]
	}
	return t.reason
}
