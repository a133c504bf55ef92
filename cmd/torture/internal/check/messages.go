package check

// handledOnce: every entry was handled once, in order.
func handledOnce(b *books) Finding {
	var v verdict
	ids := map[string]entry{}
	for _, e := range b.entries {
		ids[e.msg] = e
	}
	last, n := map[int]int64{}, map[int]int64{}
	for _, s := range b.seen {
		e, known := ids[s.msg]
		switch {
		case !known || e.list != s.list || e.n != s.n:
			v.wrong("message %s (entry %d of list %d) was handled, and there is no such entry", s.msg, s.n, s.list)
		case s.n != last[s.list]+1:
			v.wrong("list %d: entry %d was handled after entry %d", s.list, s.n, last[s.list])
		}
		last[s.list] = s.n
		n[s.list]++
	}
	for _, e := range b.entries {
		if last[e.list] < e.n {
			v.wrong("message %s (entry %d of list %d) was never handled", e.msg, e.n, e.list)
		}
	}
	for list, tally := range b.tallies {
		if tally != n[list] {
			v.wrong("list %d: its counter says %d, and %d messages were handled", list, tally, n[list])
		}
	}
	if b.waiting != 0 || b.dead != 0 {
		v.wrong("%d messages are left in the outbox, %d are dead letters", b.waiting, b.dead)
	}
	return v.as("each message is handled exactly once, in order", "%d entries, %d handled", len(b.entries), len(b.seen))
}

// noGhosts: nothing of what was rolled back is there, and the log has nothing of
// a transaction that did not commit.
func noGhosts(b *books) Finding {
	var v verdict
	ghosts, wrote := map[string]bool{}, map[string]entry{}
	for _, l := range b.told {
		if l.What == "ghost" {
			ghosts[l.ID] = true
		}
	}
	for _, e := range b.entries {
		wrote[e.msg] = e
		if ghosts[e.msg] {
			v.wrong("entry %s was rolled back, and is there", e.msg)
		}
	}
	for _, r := range b.log {
		e, known := wrote[r.msg]
		switch t := b.transactions[e.gid]; {
		case ghosts[r.msg]:
			v.wrong("message %s was rolled back, and is published", r.msg)
		case !known:
			v.wrong("message %s is published, and nobody wrote it", r.msg)
		case e.gid != "" && t.state != committed:
			v.wrong("message %s is published, and its transaction %s is %s", r.msg, e.gid, t.state)
		}
	}
	for _, l := range b.told {
		if l.What == "appended" {
			if _, there := wrote[l.ID]; !there {
				v.wrong("entry %s was committed, and is not there", l.ID)
			}
		}
	}
	return v.as("nothing of a rolled-back transaction is published", "%d ghosts, %d records", len(ghosts), len(b.log))
}

// intentsStart: a start in an outbox took place if and only if the transaction
// around it committed.
func intentsStart(b *books) Finding {
	var v verdict
	for gid := range b.intents {
		if _, known := b.transactions[gid]; !known {
			v.wrong("%s: its start was committed, and it never began", gid)
		}
	}
	n := 0
	for _, l := range b.told {
		_, began := b.transactions[l.ID]
		switch l.What {
		case "ghost":
			if n++; began || b.intents[l.ID] {
				v.wrong("%s: its start was rolled back, and it began", l.ID)
			}
		case "intended":
			if !b.intents[l.ID] {
				v.wrong("%s: its start was committed, and is not there", l.ID)
			}
		}
	}
	return v.as("starts in an outbox follow their transaction", "%d starts", len(b.intents))
}

// actsDurable: what an operator was told is done stands in the trail.
func actsDurable(b *books) Finding {
	var v verdict
	n := 0
	for _, l := range b.told {
		if l.What != "acted" {
			continue
		}
		n++
		if got := b.trails.acts[l.ID]; got != (act{l.GID, l.Name}) {
			v.wrong("%s: %s of %s was acknowledged, and its trail has %+v under that request", l.ID, l.Name, l.GID, got)
		}
	}
	for request, times := range b.trails.again {
		v.wrong("request %s stands in the trail %d times", request, times)
	}
	return v.as("operators' verbs are durable, once", "%d verbs", n)
}

// auditChains: each entry of a trail holds the hash of the one before it, and
// the transaction holds the last one.
func auditChains(b *books) Finding {
	v := b.trails.verdict
	for gid, t := range b.transactions {
		if last := b.trails.last[gid]; last.seq != t.seq || last.hash != t.hash {
			v.wrong("%s: its trail ends at entry %d, and the transaction says %d", gid, last.seq, t.seq)
		}
	}
	return v.as("audit chains verify", "%d chains, %d entries", len(b.trails.last), b.trails.n)
}

// processesStay: a process ends when it is told to.
func processesStay(b *books) Finding {
	var v verdict
	for _, e := range b.exits {
		v.wrong("%s", e)
	}
	return v.as("no process ends by itself", "%d exits", len(b.exits))
}
