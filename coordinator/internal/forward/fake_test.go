package forward

import (
	"context"

	"github.com/amends-dev/amends/coordinator/store"
)

// nobody is a cluster of two in which nobody owns anything.
type nobody struct{}

func (nobody) Members() []store.Member           { return make([]store.Member, 2) }
func (nobody) Route(string) (store.Member, bool) { return store.Member{}, false }
func (nobody) Refresh(context.Context) error     { return nil }
