// Package check tells whether what was promised holds. It shares no code with
// what it judges: it reads databases, the log and what clients were told, when
// everything is at rest, and adds up for itself.
package check

import "github.com/amends-dev/amends/cmd/torture/internal/load"

// The bank's sides, and the keeper of the lists.
const (
	east  = "east"
	west  = "west"
	notes = "notes"
)

// State of a transaction, as the coordinators' database numbers them.
type state uint8

const (
	committed  state = 4
	rolledBack state = 5
	parked     state = 6
	abandoned  state = 7
)

func (s state) String() string {
	names := map[state]string{
		1: "RUNNING", 2: "COMMITTING", 3: "ROLLING_BACK", committed: "COMMITTED", rolledBack: "ROLLED_BACK",
		parked: "PARKED", abandoned: "ABANDONED",
	}
	return names[s]
}

func (s state) ended() bool { return s == committed || s == rolledBack || s == abandoned }

// transaction is a row of the coordinators' database.
type transaction struct {
	name   string
	state  state
	paused bool
	shard  int
	seq    int64 // of the last entry of its trail
	hash   string
}

// account is a row of the bank's.
type account struct {
	side        string
	id          int
	cents, held int64
}

// effect is what a handler did.
type effect struct {
	side, gid, branch, op string
	account               int
	cents                 int64
}

// entry is of a list, as its keeper has it.
type entry struct {
	list int
	n    int64
	msg  string
	gid  string // of the saga that wrote it; empty: none did
}

// record is a message of the log, in the log's order.
type record struct {
	list int
	n    int64
	msg  string
	key  string
}

// books are all that is known.
type books struct {
	opening      int64 // cents on each account at the beginning
	accounts     []account
	counters     map[string]int64 // sum of each side
	effects      []effect
	transactions map[string]transaction
	entries      []entry
	log          []record
	seen         []record // in the order in which they were handled
	tallies      map[int]int64
	intents      map[string]bool
	waiting      int64 // messages in the outbox
	dead         int64 // dead letters, of outbox and inbox
	told         []load.Line
	exits        []string // of processes that ended though nobody asked
	trails       *trails
}

// problem is a promise that does not hold for something.
type verdict struct {
	problems []string
	more     int
}

const maxProblems = 8
