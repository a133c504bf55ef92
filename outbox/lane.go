package outbox

import "time"

const laneLogEvery = time.Minute

// lane is the partition that the outbox writes a message to.
func (o *Outbox) lane(m *Message) int {
	if o.express[m.Topic] {
		return express
	}
	return m.partition()
}

// checkLane logs a message that a writer with another Config.Express has written.
// A relay without one cannot tell: it relays all partitions, whatever is in them.
func (p *partition) checkLane(page []row) {
	if len(p.r.o.express) == 0 || time.Since(p.laneAt) < laneLogEvery {
		return
	}
	for i := range page {
		m := &page[i].msg
		if p.r.o.express[m.Topic] != (p.lease.part == express) {
			p.laneAt = time.Now()
			p.r.cfg.Logger.Warn("outbox: relay: a message is in the other lane: the writers' Config.Express differ, or it was "+
				"written before the last change", "topic", m.Topic, "id", m.ID, "partition", p.lease.part)
			return
		}
	}
}
