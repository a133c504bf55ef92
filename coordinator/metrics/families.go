package metrics

// families are the metrics of a coordinator.
type families struct {
	started, finished, stalls, verbs, refused, bulk, live, liveLimit family

	calls, retries, outcomes, answers                          family
	instances, capacity, callsWaiting, callsInFlight, waiting  family
	commit, batch, commitErrors, acquired, lost, owned, shards family

	given, forwarded, forwardRepeated, forwardFailed, forwardRefused family

	quotaUse, quotaLive, quotaRate, quotaRefused family

	sampled, unfinished, stalled, paused, oldest family
}

func newFamilies() families {
	return families{
		started:   counter("amends_transactions_started_total", "Transactions that became durable here.", "kind"),
		finished:  counter("amends_transactions_finished_total", "Transactions that ended here.", "kind", "state"),
		stalls:    counter("amends_transactions_stalled_total", "Stalls that were noted here."),
		verbs:     counter("amends_operator_verbs_total", "Operators' verbs carried out here, those of bulks included.", "verb"),
		refused:   counter("amends_starts_refused_total", "Starts and tries refused for want of room.", "reason"),
		bulk:      counter("amends_bulk_transactions_total", "Transactions that bulks met here.", "result"),
		live:      gauge("amends_live_transactions", "Unfinished transactions in memory.", "room"),
		liveLimit: gauge("amends_live_transactions_limit", "Most transactions in memory that were started here."),

		calls:         counter("amends_calls_total", "Calls of participants.", "op"),
		retries:       counter("amends_call_retries_total", "Calls that were not a first attempt.", "op"),
		outcomes:      counter("amends_call_outcomes_total", "How calls ended, repeated answers included.", "op", "outcome"),
		answers:       histogram("amends_call_duration_seconds", "Time from when an instance was given a call to its answer.", "op"),
		instances:     gauge("amends_service_instances", "Participant instances connected here.", "service"),
		capacity:      gauge("amends_service_capacity", "Calls that these instances take at once.", "service"),
		callsWaiting:  gauge("amends_service_calls_waiting", "Calls that no instance could take yet.", "service"),
		callsInFlight: gauge("amends_service_calls_in_flight", "Calls under way.", "service"),
		waiting:       gauge("amends_service_transactions", "Transactions in memory that wait for the service, for a retry too.", "service"),

		commit:       histogram("amends_commit_duration_seconds", "Time until a batch of transitions was durable."),
		batch:        histogram("amends_commit_transactions", "Transactions in a batch."),
		commitErrors: counter("amends_commit_errors_total", "Attempts to commit that failed and were repeated."),
		acquired:     counter("amends_shards_acquired_total", "Shards taken."),
		lost:         counter("amends_shards_lost_total", "Shards that another coordinator took away."),
		given:        counter("amends_shards_given_total", "Shards handed over to other coordinators."),
		owned:        gauge("amends_shards_owned", "Shards that this coordinator drives."),
		shards:       gauge("amends_shards", "Shards of the store."),

		forwarded:       counter("amends_forwarded_requests_total", "Requests sent on to the coordinators that they belong to, repetitions included."),
		forwardRepeated: counter("amends_forward_repeated_total", "Requests sent again: the owner of their shard was unknown, not reached, or another one."),
		forwardFailed:   counter("amends_forward_failed_total", "Requests that found no owner of their shard in time."),
		forwardRefused:  counter("amends_forward_refused_total", "Requests that came as forwarded, and that no coordinator of the store had vouched for."),

		quotaUse:     gauge("amends_namespace_live_transactions", "Unfinished transactions in memory, of namespaces with a quota.", "namespace"),
		quotaLive:    gauge("amends_namespace_live_transactions_quota", "Most of them that there may be; 0: any.", "namespace"),
		quotaRate:    gauge("amends_namespace_starts_per_second_quota", "Most starts per second; 0: any.", "namespace"),
		quotaRefused: counter("amends_namespace_starts_refused_total", "Starts refused because of the namespace's quota.", "namespace"),

		sampled:    gauge("amends_backlog_sample_success", "1: the store answered the last question about the backlog; 0: it did not."),
		unfinished: gauge("amends_unfinished_transactions", "Transactions in the store that have not ended.", "kind", "state"),
		stalled:    gauge("amends_stalled_transactions", "Transactions that wait for a participant for too long.", "kind"),
		paused:     gauge("amends_paused_transactions", "Transactions that an operator paused.", "kind"),
		oldest:     gauge("amends_oldest_unfinished_age_seconds", "Age of the oldest transaction that has not ended; 0: none.", "kind"),
	}
}

func (f *families) all() []family {
	return []family{
		f.started, f.finished, f.stalls, f.verbs, f.refused, f.bulk, f.live, f.liveLimit,
		f.calls, f.retries, f.outcomes, f.answers,
		f.instances, f.capacity, f.callsWaiting, f.callsInFlight, f.waiting,
		f.commit, f.batch, f.commitErrors, f.acquired, f.lost, f.given, f.owned, f.shards,
		f.forwarded, f.forwardRepeated, f.forwardFailed, f.forwardRefused,
		f.quotaUse, f.quotaLive, f.quotaRate, f.quotaRefused,
		f.sampled, f.unfinished, f.stalled, f.paused, f.oldest,
	}
}
