package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNoMessage is returned for a position at which no message waits, any more.
var ErrNoMessage = errors.New("outbox: no such message")

// Operator is how people look into an outbox and act on it: see, skip and park
// messages, replay and discard dead letters. Every act is recorded in the
// transaction that carries it out. Relays need not run, and those of any process
// take notice within their RelayConfig.PollMax. Safe for concurrent use.
type Operator struct {
	o  *Outbox
	d  *Dialect
	db *sql.DB
}

// Operator makes one for the outbox in db. It wakes the relays of o when what it
// did gives them something to do. Mistakes in o's Config do not concern it, but
// New must have been given a dialect.
func (o *Outbox) Operator(db *sql.DB) *Operator { return &Operator{o: o, d: o.d, db: db} }

// Position names a message that waits: its partition, and its row there, or of
// one that is aside its row there. It is never given to another message.
type Position struct {
	Partition int
	Row       int64
	Aside     bool // until its time, or behind a message of its key
}

// String is, for example, "2-1071", or "2+17" for a message that is aside.
func (p Position) String() string {
	mark := "-"
	if p.Aside {
		mark = "+"
	}
	return strconv.Itoa(p.Partition) + mark + strconv.FormatInt(p.Row, 10)
}

// within is the row behind which a list goes on in a table, if it does not go on
// behind that table. In a partition what is aside comes first.
func (p Position) within(part int, aside bool) (row int64, ok bool) {
	switch {
	case part > p.Partition || p.Row == 0:
		return 0, true
	case p.Aside == aside:
		return p.Row, true
	}
	return 0, p.Aside
}

// ParsePosition reads what String wrote; any other text is ErrNoMessage.
func ParsePosition(s string) (Position, error) {
	var p Position
	part, row, _ := strings.Cut(s, "-")
	if before, after, ok := strings.Cut(s, "+"); ok {
		part, row, p.Aside = before, after, true
	}
	var err, rowErr error
	p.Partition, err = strconv.Atoi(part)
	p.Row, rowErr = strconv.ParseInt(row, 10, 64)
	if errors.Join(err, rowErr) != nil || p.Partition < 0 || p.Partition >= Partitions || p.Row <= 0 || p.String() != s {
		return Position{}, fmt.Errorf("%w: %q is not a position: they look like 2-1071", ErrNoMessage, s)
	}
	return p, nil
}

// Status is how full an outbox is, and who works on it.
type Status struct {
	Backlog
	Blocked    int           // keys whose first message does not get through
	Topics     []TopicStatus // by name; only those with messages waiting
	Partitions [Partitions]PartitionStatus
}

// TopicStatus is what waits of one topic.
type TopicStatus struct {
	Topic  string
	Rows   int64
	Oldest time.Duration // age of the oldest row; of those aside, since it was due
}

// PartitionStatus is one partition, and the relay that works on it.
type PartitionStatus struct {
	Rows      int64
	Oldest    time.Duration // age of the oldest row, 0 when there is none; of those aside, since it was due
	Owner     string        // the relay that has it, or had it last
	Epoch     int64         // grows with each change of the owner
	LeaseLeft time.Duration // 0: nobody has it now
}

// Status reads every waiting row once: its cost grows with them.
func (op *Operator) Status(ctx context.Context) (Status, error) {
	var s Status
	topics := map[string]*TopicStatus{}
	for p := range s.Partitions {
		if err := op.partitionStatus(ctx, p, &s, topics); err != nil {
			return Status{}, fmt.Errorf("outbox: status: %w", err)
		}
	}
	for _, t := range topics {
		s.Topics = append(s.Topics, *t)
	}
	slices.SortFunc(s.Topics, func(a, b TopicStatus) int { return cmp.Compare(a.Topic, b.Topic) })
	err := op.each(ctx, op.d.operate.owners, nil, func(scan scanner) error {
		var part int
		var p PartitionStatus
		var left int64
		if err := scan(&part, &p.Owner, &p.Epoch, &left); err != nil || part < 0 || part >= Partitions {
			return err
		}
		at := &s.Partitions[part]
		at.Owner, at.Epoch, at.LeaseLeft = p.Owner, p.Epoch, max(0, time.Duration(left)*time.Microsecond)
		return nil
	})
	if err == nil {
		var others Backlog
		err = others.addOthers(ctx, op.db, op.d)
		s.Delayed, s.Dead, s.Parked = others.Delayed, others.Dead, others.Parked
	}
	if err != nil {
		return Status{}, fmt.Errorf("outbox: status: %w", err)
	}
	return s, nil
}

func (op *Operator) partitionStatus(ctx context.Context, part int, s *Status, topics map[string]*TopicStatus) error {
	p := &s.Partitions[part]
	add := func(scan scanner) error {
		var topic string
		var rows, age int64
		if err := scan(&topic, &rows, &age); err != nil {
			return err
		}
		t := topics[topic]
		if t == nil {
			t = &TopicStatus{Topic: topic}
			topics[topic] = t
		}
		oldest := max(0, time.Duration(age)*time.Microsecond)
		t.Rows, t.Oldest = t.Rows+rows, max(t.Oldest, oldest)
		p.Rows, p.Oldest = p.Rows+rows, max(p.Oldest, oldest)
		s.Rows, s.Oldest = s.Rows+rows, max(s.Oldest, oldest)
		return nil
	}
	if err := op.each(ctx, op.d.operate.part[part].topics, nil, add); err != nil {
		return err
	}
	if err := op.each(ctx, op.d.aside.topics, []any{part}, add); err != nil {
		return err
	}
	blocked, err := op.blockedIn(ctx, Position{Partition: part}, maxNotes)
	if err != nil {
		return err
	}
	aside := 0
	err = op.db.QueryRowContext(ctx, op.d.aside.blocks, part).Scan(&aside)
	s.Blocked += len(blocked) + aside
	return err
}

// Identity is a random value that the database of an outbox keeps for good, and
// that no other has, copies of it apart: what is kept elsewhere for a database
// is told apart by it.
func (op *Operator) Identity(ctx context.Context) (string, error) {
	var value string
	get := func() error { return op.db.QueryRowContext(ctx, op.d.operate.identityGet).Scan(&value) }
	if err := get(); err == nil {
		return value, nil
	}
	fresh, err := newID()
	if err != nil {
		return "", err
	}
	// When another process was faster, it fails, and its value is there.
	_, addErr := op.db.ExecContext(ctx, op.d.operate.identityAdd, fresh)
	if err := get(); err != nil {
		return "", fmt.Errorf("outbox: read the identity (was outbox.Migrate run?): %w", errors.Join(err, addErr))
	}
	return value, nil
}

// scanner is Scan of a row.
type scanner func(dest ...any) error

// each runs fn for every row of a query.
func (op *Operator) each(ctx context.Context, query string, args []any, fn func(scanner) error) error {
	return eachRow(ctx, op.db, query, args, fn)
}

func eachRow(ctx context.Context, q querier, query string, args []any, fn func(scanner) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() // its error is in rows.Err
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
