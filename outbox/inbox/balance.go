package inbox

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
)

// sticky is a balancer that leaves partitions where they are, as far as every member gets its share of each topic.
type sticky struct{ owned func() ownership }

// ownership is what a member had in its last generation. Of two that had a partition the later one counts.
type ownership struct {
	Generation int32            `json:"generation"`
	Partitions map[string][]int `json:"partitions"`
}

// owned is what the consumer has.
func (c *Consumer) owned() ownership {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := ownership{Generation: c.at, Partitions: map[string][]int{}}
	for tp := range c.trackers {
		o.Partitions[tp.Topic] = append(o.Partitions[tp.Topic], tp.Partition)
	}
	return o
}

// ProtocolName implements kafka.GroupBalancer.
func (s *sticky) ProtocolName() string { return "amends-sticky" }

// UserData implements kafka.GroupBalancer.
func (s *sticky) UserData() ([]byte, error) { return json.Marshal(s.owned()) }

// AssignGroups implements kafka.GroupBalancer: for each topic by itself, so that a member does not get all partitions
// of a busy topic and another one those of its retries. Where the numbers do not divide, who has less in all gets one
// more, but who has it already and is not above the average keeps it.
func (s *sticky) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	members = slices.SortedFunc(slices.Values(members), func(a, b kafka.GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	owners := ownersOf(members)
	byTopic := map[string][]int{}
	for _, p := range partitions {
		byTopic[p.Topic] = append(byTopic[p.Topic], p.ID)
	}
	out := kafka.GroupMemberAssignments{}
	for _, m := range members {
		out[m.ID] = map[string][]int{}
	}
	load := map[string]int{}
	fair := (len(partitions) + len(members) - 1) / max(1, len(members))
	for _, topic := range slices.Sorted(maps.Keys(byTopic)) {
		slices.Sort(byTopic[topic])
		for id, parts := range assign(topic, byTopic[topic], members, owners, load, fair) {
			out[id][topic] = parts
			load[id] += len(parts)
		}
	}
	return out
}

// ownersOf is who had each partition.
func ownersOf(members []kafka.GroupMember) map[TopicPartition]string {
	owners, since := map[TopicPartition]string{}, map[TopicPartition]int32{}
	for _, m := range members {
		var o ownership
		if json.Unmarshal(m.UserData, &o) != nil {
			continue // a member that tells nothing owns nothing
		}
		for topic, parts := range o.Partitions {
			for _, p := range parts {
				tp := TopicPartition{topic, p}
				if _, taken := owners[tp]; !taken || o.Generation > since[tp] {
					owners[tp], since[tp] = m.ID, o.Generation
				}
			}
		}
	}
	return owners
}

// assign gives the partitions of one topic to its members.
func assign(topic string, partitions []int, members []kafka.GroupMember, owners map[TopicPartition]string,
	load map[string]int, fair int,
) map[string][]int {
	var ids []string
	for _, m := range members {
		if slices.Contains(m.Topics, topic) {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	had := map[string][]int{}
	for _, p := range partitions {
		owner := owners[TopicPartition{topic, p}]
		had[owner] = append(had[owner], p)
	}
	least := len(partitions) / len(ids)
	quota := map[string]int{}
	keeps := func(id string) bool { return len(had[id]) > least && load[id]+least < fair }
	order := slices.SortedStableFunc(slices.Values(ids), func(a, b string) int {
		if x, y := keeps(a), keeps(b); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(load[a], load[b])
	})
	for i, id := range order {
		quota[id] = least
		if i < len(partitions)%len(ids) {
			quota[id]++
		}
	}
	return fill(partitions, ids, had, quota)
}

// fill lets everybody keep what the quota allows, and gives out the rest.
func fill(partitions []int, ids []string, had map[string][]int, quota map[string]int) map[string][]int {
	out, kept := map[string][]int{}, map[int]bool{}
	for _, id := range ids {
		out[id] = slices.Clone(had[id][:min(len(had[id]), quota[id])])
		for _, p := range out[id] {
			kept[p] = true
		}
	}
	at := 0
	for _, p := range partitions {
		if kept[p] {
			continue
		}
		for len(out[ids[at]]) >= quota[ids[at]] {
			at++
		}
		out[ids[at]] = append(out[ids[at]], p)
	}
	return out
}
