package auth

import (
	"errors"
	"fmt"
	"math"
)

// Quota bounds what one namespace takes of each coordinator. Zero values bound
// nothing. What was started goes on, whatever the quota is then: it is neither
// kept from getting on, nor from being turned back.
type Quota struct {
	// Live is how many unfinished transactions may be in a coordinator's
	// memory: all but those that only a person can move, and those that are due
	// in more than two minutes.
	Live int `json:"live"`
	// StartsPerSecond is how many may be started, over time.
	StartsPerSecond float64 `json:"starts_per_second"`
	// Burst is how many may be started at once. 0: as many as in a second, and
	// one at least.
	Burst int `json:"burst"`
}

// quotas are those of namespaces by name; that of All is for those not named.
type quotas map[string]Quota

func (q quotas) of(namespace string) Quota {
	if own, named := q[namespace]; named {
		return own
	}
	return q[All]
}

// Quota is that of a namespace, by the file as it is now.
func (f *File) Quota(namespace string) Quota { return f.content.get().quotas.of(namespace) }

// quoter is an Authenticator that knows quotas.
type quoter interface{ Quota(namespace string) Quota }

// Quota is that of the first Authenticator that knows any.
func (chain Chain) Quota(namespace string) Quota {
	for _, a := range chain {
		if q, ok := a.(quoter); ok {
			return q.Quota(namespace)
		}
	}
	return Quota{}
}

// Quota is that of a namespace, by the Guard's Authenticator if it knows any,
// as a File does.
func (g *Guard) Quota(namespace string) Quota {
	if q, ok := g.who.(quoter); ok {
		return q.Quota(namespace)
	}
	return Quota{}
}

func (q Quota) check() error {
	var errs []error
	if q.Live < 0 {
		errs = append(errs, fmt.Errorf("live is %d: want 1 or more, or leave it out", q.Live))
	}
	if !(q.StartsPerSecond >= 0) || math.IsInf(q.StartsPerSecond, 1) {
		errs = append(errs, fmt.Errorf("starts_per_second is %v: want more than 0, or leave it out", q.StartsPerSecond))
	}
	if q.Burst < 0 || q.Burst > 0 && q.StartsPerSecond == 0 {
		errs = append(errs, fmt.Errorf("burst is %d: want 1 or more, with starts_per_second", q.Burst))
	}
	return errors.Join(errs...)
}
