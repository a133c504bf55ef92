package inbox

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go"
)

// assigned runs the balancer for members, given what each had.
func assigned(t testing.TB, had map[string]ownership, topics map[string]int) kafka.GroupMemberAssignments {
	var members []kafka.GroupMember
	for id, o := range had {
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		m := kafka.GroupMember{ID: id, UserData: data}
		for topic := range topics {
			m.Topics = append(m.Topics, topic)
		}
		members = append(members, m)
	}
	var parts []kafka.Partition
	for topic, n := range topics {
		for p := range n {
			parts = append(parts, kafka.Partition{Topic: topic, ID: p})
		}
	}
	return (&sticky{}).AssignGroups(members, parts)
}

// TestStickyBalance walks members in and out at random: each partition has one owner, each topic is
// spread evenly, and nothing moves when nothing has changed.
func TestStickyBalance(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		topics := map[string]int{}
		for i := range 1 + rnd.IntN(4) {
			topics[fmt.Sprint("t", i)] = 1 + rnd.IntN(7)
		}
		had := map[string]ownership{"m0": {}}
		for step := range int32(8) {
			if id := fmt.Sprint("m", rnd.IntN(6)); len(had) > 1 && rnd.IntN(2) == 0 {
				delete(had, id)
			} else if _, in := had[id]; !in {
				had[id] = ownership{}
			}
			if len(had) == 0 {
				had["m9"] = ownership{}
			}
			got := assigned(t, had, topics)
			checkBalance(t, fmt.Sprintf("seed %d, step %d", seed, step), got, topics, len(had))
			again := map[string]ownership{}
			for id := range had {
				again[id] = ownership{step + 1, got[id]}
			}
			for id, parts := range assigned(t, again, topics) {
				for topic := range topics {
					if !slices.Equal(sorted(parts[topic]), sorted(got[id][topic])) {
						t.Fatalf("seed %d, step %d: nothing has changed, and %s gets %v after %v", seed, step, id, parts, got[id])
					}
				}
			}
			had = again
		}
	}
}

func sorted(a []int) []int { return slices.Sorted(slices.Values(a)) }

func checkBalance(t *testing.T, where string, got kafka.GroupMemberAssignments, topics map[string]int, members int) {
	t.Helper()
	for topic, n := range topics {
		owner := map[int]string{}
		for id, parts := range got {
			if k := len(parts[topic]); k < n/members || k > (n+members-1)/members {
				t.Fatalf("%s: %s has %d of %d partitions of %s, with %d members", where, id, k, n, topic, members)
			}
			for _, p := range parts[topic] {
				if owner[p] != "" {
					t.Fatalf("%s: %s/%d belongs to %s and %s", where, topic, p, owner[p], id)
				}
				owner[p] = id
			}
		}
		if len(owner) != n {
			t.Fatalf("%s: %d of %d partitions of %s have an owner", where, len(owner), n, topic)
		}
	}
}

func TestStickyKeeps(t *testing.T) {
	all := map[string]int{"orders": 6, "retry": 6}
	got := assigned(t, map[string]ownership{
		"a": {5, map[string][]int{"orders": {0, 1, 2, 3, 4, 5}, "retry": {0, 1, 2, 3, 4, 5}}}, "b": {},
	}, all)
	for topic := range all {
		if !slices.Equal(sorted(got["a"][topic]), []int{0, 1, 2}) || !slices.Equal(sorted(got["b"][topic]), []int{3, 4, 5}) {
			t.Errorf("%s: %v", topic, got)
		}
	}
	got = assigned(t, map[string]ownership{ // a was away: what it had is b's since
		"a": {5, map[string][]int{"orders": {0}}}, "b": {7, map[string][]int{"orders": {0}}},
	}, map[string]int{"orders": 2})
	if !slices.Equal(got["b"]["orders"], []int{0}) {
		t.Errorf("a partition went back to whom it belonged before: %v", got)
	}
	single := map[string]int{"t1": 1, "t2": 1, "t3": 1, "t4": 1}
	got = assigned(t, map[string]ownership{
		"a": {1, map[string][]int{"t1": {0}, "t2": {0}, "t3": {0}, "t4": {0}}}, "b": {},
	}, single)
	if n := len(got["a"]["t1"]) + len(got["a"]["t2"]) + len(got["a"]["t3"]) + len(got["a"]["t4"]); n != 2 {
		t.Errorf("topics of one partition are not shared: %v", got)
	}
	members := []kafka.GroupMember{{ID: "a", Topics: []string{"x"}, UserData: []byte("of another kind")}, {ID: "b", Topics: []string{"y"}}}
	other := (&sticky{}).AssignGroups(members, []kafka.Partition{{Topic: "x", ID: 0}, {Topic: "y", ID: 0}, {Topic: "z", ID: 0}})
	if len(other["a"]["x"]) != 1 || len(other["b"]["y"]) != 1 || len(other["b"]["x"])+len(other["a"]["z"]) != 0 {
		t.Errorf("members with topics of their own: %v", other)
	}
}
