package check

// money: what left the accounts was captured, and what was captured are the
// prices of the confirmed orders, each once.
func money(b *books) Invariant {
	var v verdict
	var captured, owed int64
	times := map[string]int{}
	for _, c := range b.captures {
		captured += c.cents
		times[c.order]++
		if o, known := b.orders[c.order]; !known || c.cents != o.cents {
			v.wrong("order %s: charged %s, but its price is %s", c.order, cents(c.cents), cents(o.cents))
		}
	}
	for id, o := range b.orders {
		want := 0
		if o.state == confirmed {
			want = 1
			owed += o.cents
		}
		if times[id] != want {
			v.wrong("order %s: is %s and was charged %d times, want %d", id, o.state, times[id], want)
		}
	}
	opening := b.shop.Balance * b.accounts.n
	v.must("cents on accounts and captured", b.accounts.cents+captured, opening)
	v.must("cents captured, against the confirmed orders", captured, owed)
	return v.as("money conserved", "%s in %d accounts = %s left + %s captured", cents(opening), b.accounts.n,
		cents(b.accounts.cents), cents(captured))
}

// stock: every piece is on the shelf or with the customer of a confirmed order.
func stock(b *books) Invariant {
	var v verdict
	want := map[string]int64{}
	for _, o := range b.orders {
		if o.state == confirmed {
			want[o.product] += o.quantity
		}
		if o.reward == given {
			want[o.gift]++
		}
	}
	var initial, shelf, gone int64
	for product, n := range b.shop.Stock {
		p := b.stock[product]
		v.must(product+": pieces", p.shelf+p.held+p.gone, n)
		v.must(product+": pieces held for nobody", p.held, 0)
		v.must(product+": pieces gone", p.gone, want[product])
		initial, shelf, gone = initial+n, shelf+p.shelf, gone+p.gone
	}
	return v.as("stock conserved", "%d pieces = %d on the shelf + %d with customers", initial, shelf, gone)
}

// rewards: points and gift came together or not at all.
func rewards(b *books) Invariant {
	var v verdict
	var n, refusedN, points int64
	for id, o := range b.orders {
		t, asked := b.transactions["reward-"+id]
		switch {
		case o.reward == given:
			n++
			points += o.cents / 100
			if !t.committed() {
				v.wrong("order %s: reward given, but its transaction is %s", id, t.state)
			}
		case o.reward == refused:
			refusedN++
			if !t.rolledBack() {
				v.wrong("order %s: reward refused, but its transaction is %s", id, t.state)
			}
		case o.reward == "" && asked:
			v.wrong("order %s: has a reward that it did not ask for", id)
		}
	}
	v.must("points on accounts", b.accounts.points, points)
	v.must("points held for nobody", b.accounts.held, 0)
	return v.as("rewards whole", "%d given with %d points, %d refused", n, points, refusedN)
}

// inBetween: everything has come to its end, and order and coordinator agree
// which.
func inBetween(b *books) Invariant {
	var v verdict
	for id, o := range b.orders {
		t := b.transactions["order-"+id]
		if o.state == confirmed && !t.committed() || o.state == rejected && !t.rolledBack() {
			v.wrong("order %s: is %s, but its saga is %s", id, o.state, t.state)
		}
		if !o.ended() {
			v.wrong("order %s: is still %s (its saga is %s)", id, o.state, t.state)
		}
		if o.reward != "" && o.reward != given && o.reward != refused {
			v.wrong("order %s: its reward is still %s", id, o.reward)
		}
	}
	for gid, t := range b.transactions {
		if !t.state.Finished() {
			v.wrong("transaction %s: is still %s: %s", gid, t.state, t.reason)
		}
		if t.kind == "saga" && !b.knows(gid) {
			v.wrong("transaction %s: belongs to no order", gid)
		}
	}
	v.must("messages left in the outbox", b.outbox, 0)
	v.must("dead letters", b.dead, 0)
	return v.as("no order in between", "%d orders and %d transactions ended", len(b.orders), len(b.transactions))
}

// handledOnce: every message that was written is in Kafka and was handled once.
func handledOnce(b *books) Invariant {
	var v verdict
	type about struct{ topic, order string }
	ids := map[string]about{}     // of the log
	messages := map[about]int{}   // different messages of the log
	handled := map[string]int64{} // mails by message
	for _, r := range b.log {
		if _, known := ids[r.id]; !known {
			messages[about{r.topic, r.key}]++
		}
		ids[r.id] = about{r.topic, r.key}
	}
	for _, m := range b.mails {
		handled[m.message]++
		if ids[m.message] != (about{m.topic, m.order}) {
			v.wrong("mail about order %s: its message %s is not in %s", m.order, m.message, m.topic)
		}
	}
	for id, a := range ids {
		if handled[id] != 1 {
			v.wrong("message %s (%s of order %s): handled %d times, want 1", id, a.topic, a.order, handled[id])
		}
	}
	for id, o := range b.orders {
		want := []string{b.shop.Topics.Placed}
		switch o.state {
		case confirmed:
			want = append(want, b.shop.Topics.Confirmed)
		case rejected:
			want = append(want, b.shop.Topics.Rejected)
		}
		for _, topic := range want {
			if n := messages[about{topic, id}]; n != 1 {
				v.wrong("order %s: %d different messages in %s, want 1", id, n, topic)
			}
		}
	}
	return v.as("each message handled once", "%d records in Kafka, %d messages, %d handled", len(b.log), len(ids), len(b.mails))
}

// noGhosts: no message tells of what was rolled back, locally or globally.
func noGhosts(b *books) Invariant {
	var v verdict
	for _, r := range b.log {
		o, known := b.orders[r.key]
		switch {
		case !known:
			v.wrong("%s tells of order %s, whose placing was rolled back", r.topic, r.key)
		case r.topic == b.shop.Topics.Confirmed && o.state != confirmed,
			r.topic == b.shop.Topics.Rejected && o.state != rejected:
			v.wrong("%s tells of order %s, which is %s", r.topic, r.key, o.state)
		}
	}
	return v.as("no message of a rolled-back transaction", "%d records checked", len(b.log))
}
