package engine

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestGifts(t *testing.T) {
	for name, c := range map[string]struct {
		all  []standing
		want map[string][]gift // by giver
	}{
		"alone":             {[]standing{{"a", 8, true}}, nil},
		"one more":          {[]standing{{"a", 5, true}, {"b", 4, true}}, nil},
		"who has most":      {[]standing{{"a", 4, true}, {"b", 5, true}, {"c", 5, true}}, nil},
		"two more":          {[]standing{{"a", 5, true}, {"b", 3, true}}, map[string][]gift{"a": {{"b", 1}}}},
		"a newcomer":        {[]standing{{"a", 4, true}, {"b", 4, true}, {"c", 0, true}}, map[string][]gift{"b": {{"c", 1}}, "a": {{"c", 1}}}},
		"two newcomers":     {[]standing{{"a", 8, true}, {"b", 0, true}, {"c", 0, true}}, map[string][]gift{"a": {{"c", 2}, {"b", 3}}}},
		"more than shards":  {[]standing{{"a", 1, true}, {"b", 1, true}, {"c", 0, true}}, nil},
		"drains":            {[]standing{{"a", 4, false}, {"b", 4, true}, {"c", 4, true}}, map[string][]gift{"a": {{"c", 2}, {"b", 2}}}},
		"drains to least":   {[]standing{{"a", 2, false}, {"b", 6, true}, {"c", 0, true}}, map[string][]gift{"b": {{"c", 2}}, "a": {{"c", 2}}}},
		"all drain":         {[]standing{{"a", 4, false}, {"b", 4, false}}, nil},
		"drains, and alone": {[]standing{{"a", 4, false}}, nil},
	} {
		for _, s := range c.all {
			if got := gifts(c.all, s.name); !reflect.DeepEqual(got, c.want[s.name]) {
				t.Errorf("%s: %s gives %v, want %v", name, s.name, got, c.want[s.name])
			}
		}
	}
}

// TestGiftsBalance: whatever the standings, one plan of all makes them even,
// and nobody both gives and gets.
func TestGiftsBalance(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		var all []standing
		takers := 0
		for i := range 1 + r.IntN(9) {
			s := standing{fmt.Sprint("m", i), r.IntN(1 + r.IntN(60)), r.IntN(4) > 0}
			all = append(all, s)
			if s.takes {
				takers++
			}
		}
		after, gave, got := map[string]int{}, map[string]bool{}, map[string]bool{}
		for _, s := range all {
			after[s.name] += s.holds
			for _, g := range gifts(all, s.name) {
				after[s.name] -= g.shards
				after[g.to] += g.shards
				gave[s.name], got[g.to] = true, true
			}
		}
		least, most := 1<<30, 0
		for _, s := range all {
			switch n := after[s.name]; {
			case gave[s.name] && got[s.name]:
				t.Fatalf("%v: %s gives and gets", all, s.name)
			case takers == 0 && n != s.holds, takers > 0 && !s.takes && n != 0:
				t.Fatalf("%v: %s has %d", all, s.name, n)
			case s.takes:
				least, most = min(least, n), max(most, n)
			}
		}
		if most > least+1 && takers > 0 {
			t.Fatalf("%v: between %d and %d", all, least, most)
		}
	}
}
