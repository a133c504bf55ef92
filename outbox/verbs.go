package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DeadSelection says which dead letters to act on: Numbers, each of which has to
// be there, or the oldest MaxActed of a Topic, of a Key, or of both.
type DeadSelection struct {
	Numbers []int64
	Topic   string
	Key     string
}

func (s *DeadSelection) validate() error {
	named := s.Topic != "" || s.Key != ""
	switch {
	case named && len(s.Numbers) > 0:
		return fmt.Errorf("%w: field Numbers is given beside Topic or Key: give one or the other", ErrAct)
	case !named && len(s.Numbers) == 0:
		return fmt.Errorf("%w: fields Numbers, Topic and Key are empty: say which dead letters", ErrAct)
	case len(s.Numbers) > MaxActed:
		return fmt.Errorf("%w: field Numbers has %d entries, at most %d are allowed", ErrAct, len(s.Numbers), MaxActed)
	}
	return nil
}

// String tells people what is selected.
func (s *DeadSelection) String() string {
	var parts []string
	if len(s.Numbers) > 0 {
		words := make([]string, len(s.Numbers))
		for i, n := range s.Numbers {
			words[i] = strconv.FormatInt(n, 10)
		}
		parts = append(parts, "dead letter "+strings.Join(words, ","))
	}
	if s.Topic != "" {
		parts = append(parts, "topic "+s.Topic)
	}
	if s.Key != "" {
		parts = append(parts, "key "+s.Key)
	}
	return strings.Join(parts, " ")
}

// Replay moves dead letters back into the outbox, by number. They are published
// behind what waits there already: among themselves those of a key keep their
// order, but messages of the key that were published meanwhile are before them.
// They keep their ids, so that consumers drop what they had already.
//
// Parked ones go on in the order of their key, before everything that came later.
// Those of a key are replayed from the first on: a selection that leaves out an
// earlier one is ErrAct. What of the key is not replayed stays parked, and so does
// what comes behind it.
func (op *Operator) Replay(ctx context.Context, s DeadSelection, r ActRequest) (Act, error) {
	return op.actOnDead(ctx, VerbReplay, s, r, replayParked, func(tx *sql.Tx, number int64, part int) error {
		if part < 0 || part >= Partitions {
			return fmt.Errorf("%w: number %d is of partition %d: discard it, or correct its row", ErrNoDeadLetter, number, part)
		}
		_, err := tx.ExecContext(ctx, op.d.part[part].revive, number)
		return err
	})
}

// Discard deletes dead letters for good. Of a parked key the rest stays parked.
func (op *Operator) Discard(ctx context.Context, s DeadSelection, r ActRequest) (Act, error) {
	return op.actOnDead(ctx, VerbDiscard, s, r, discardParked, func(*sql.Tx, int64, int) error { return nil })
}

// actOnDead does something with each selected dead letter, and deletes it, and
// something with those that are parked.
func (op *Operator) actOnDead(ctx context.Context, verb Verb, s DeadSelection, r ActRequest, onEach parkedVerb,
	each func(tx *sql.Tx, number int64, part int) error,
) (Act, error) {
	if err := s.validate(); err != nil {
		return Act{}, err
	}
	s.Numbers = slices.Compact(slices.Sorted(slices.Values(s.Numbers)))
	return op.act(ctx, r, Act{Verb: verb, Target: s.String()}, func(ctx context.Context, tx *sql.Tx, a *Act) error {
		numbers, err := op.pick(ctx, tx, s, a)
		if err != nil {
			return err
		}
		letters, aside := splitParked(numbers)
		for chunk := range slices.Chunk(letters, actChunk) {
			if err := op.takeDead(ctx, tx, chunk, len(s.Numbers) > 0, a, each); err != nil {
				return err
			}
		}
		return onParked(ctx, tx, op.d, aside, len(s.Numbers) > 0, a, onEach)
	})
}

// pick answers the numbers that are selected.
func (op *Operator) pick(ctx context.Context, tx *sql.Tx, s DeadSelection, a *Act) ([]int64, error) {
	if len(s.Numbers) > 0 {
		return s.Numbers, nil
	}
	key := []byte(s.Key)
	var numbers []int64
	pick := func(query string, add int64) error {
		args := []any{s.Topic, s.Topic, key, key, MaxActed + 1 - len(numbers)}
		return eachRow(ctx, tx, query, args, func(scan scanner) error {
			var n int64
			err := scan(&n)
			numbers = append(numbers, n+add)
			return err
		})
	}
	err := lockParts(ctx, tx, op.d) // or a relay could park earlier ones of a key meanwhile
	if err == nil {
		err = pick(op.d.operate.deadPick, 0)
	}
	if err == nil {
		err = pick(op.d.aside.parkedPick, parkedNumbers)
	}
	if len(numbers) > MaxActed {
		a.More, numbers = true, numbers[:MaxActed]
	}
	return numbers, err
}

// takeDead locks some dead letters, so that nobody else acts on them, and takes
// them away after each was called for each.
func (op *Operator) takeDead(ctx context.Context, tx *sql.Tx, numbers []int64, all bool, a *Act,
	each func(tx *sql.Tx, number int64, part int) error,
) error {
	var there []int64
	var parts []int
	var ids []string
	query := withIn(op.d.operate.deadLock, len(numbers))
	err := eachRow(ctx, tx, query, idArgs(numbers), func(scan scanner) error {
		var number int64
		var part int
		var id []byte
		err := scan(&number, &part, &id)
		there, parts, ids = append(there, number), append(parts, part), append(ids, string(id))
		return err
	})
	if err != nil {
		return err
	}
	if all {
		for _, n := range numbers {
			if _, ok := slices.BinarySearch(there, n); !ok {
				return fmt.Errorf("%w: number %d", ErrNoDeadLetter, n)
			}
		}
	}
	if len(there) == 0 {
		return nil
	}
	for i, n := range there {
		if err := each(tx, n, parts[i]); err != nil {
			return err
		}
	}
	a.moved(ids)
	return exactly(ctx, tx, len(there), withIn(op.d.operate.deadRemove, len(there)), idArgs(there))
}

// Skip moves a waiting message to the dead letters, whether or not it blocks or
// parks its key, so that what is behind it can be published: that is tried again
// at once, and no longer parked. A relay that is publishing it
// at this moment may have succeeded: then it is in the log, and its dead letter
// is a duplicate, with the same id. ErrNoMessage: it does not wait any more.
func (op *Operator) Skip(ctx context.Context, at Position, r ActRequest) (Act, error) {
	if err := at.check(); err != nil {
		return Act{}, err
	}
	what := Act{Verb: VerbSkip, Target: "position " + at.String()}
	return op.act(ctx, r, what, func(ctx context.Context, tx *sql.Tx, a *Act) error {
		var err error
		if at.Aside {
			err = op.skipAside(ctx, tx, at, a)
		} else {
			err = op.bury(ctx, tx, at.Partition, []int64{at.Row}, a)
		}
		if err != nil {
			return err
		}
		if a.Messages == 0 {
			return fmt.Errorf("%w: nothing waits at %s", ErrNoMessage, at)
		}
		if at.Aside {
			return nil
		}
		_, err = tx.ExecContext(ctx, op.d.operate.noteLift, at.Partition, at.Row)
		return err
	})
}

// Park moves every waiting message of a key to the dead letters, in order; what
// of it commits later is published. What the policy ParkKey has parked is there
// already, and stays. As with Skip, what a relay is publishing at
// this moment can be in the log too. ErrNoMessage: no message of the key waits.
func (op *Operator) Park(ctx context.Context, key string, r ActRequest) (Act, error) {
	if key == "" {
		return Act{}, fmt.Errorf("%w: the key is empty: messages without a key are skipped one by one", ErrAct)
	}
	m := Message{Key: key}
	return op.act(ctx, r, Act{Verb: VerbPark, Target: "key " + key}, func(ctx context.Context, tx *sql.Tx, a *Act) error {
		for _, part := range []int{m.partition(), express} {
			if err := op.parkIn(ctx, tx, part, key, a); err != nil {
				return err
			}
		}
		if a.Messages == 0 {
			return fmt.Errorf("%w: no message of key %q waits", ErrNoMessage, key)
		}
		return nil
	})
}

// parkIn parks what waits of a key in one partition.
func (op *Operator) parkIn(ctx context.Context, tx *sql.Tx, part int, key string, a *Act) error {
	if err := op.parkAside(ctx, tx, part, key, a); err != nil {
		return err
	}
	var rows []int64
	err := eachRow(ctx, tx, op.d.operate.part[part].ofKey, []any{[]byte(key)}, func(scan scanner) error {
		var row int64
		err := scan(&row)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(rows, actChunk) {
		if err := op.bury(ctx, tx, part, chunk, a); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, op.d.operate.noteLiftKey, part, []byte(key))
	return err
}

// KeyAt is the key of a waiting message, or ErrNoMessage.
func (op *Operator) KeyAt(ctx context.Context, at Position) (string, error) {
	if err := at.check(); err != nil {
		return "", err
	}
	query, args := op.d.operate.part[at.Partition].keyAt, []any{at.Row}
	if at.Aside {
		query, args = op.d.aside.at, []any{at.Row, at.Partition}
	}
	var key []byte
	err := op.db.QueryRowContext(ctx, query, args...).Scan(&key)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("%w: nothing waits at %s", ErrNoMessage, at)
	}
	return string(key), err
}

func (p Position) check() error {
	if p.Partition < 0 || p.Partition >= Partitions {
		return fmt.Errorf("%w: there is no partition %d", ErrNoMessage, p.Partition)
	}
	return nil
}

// bury moves those rows that are still there to the dead letters. They are
// locked first: what is deleted is exactly what was copied.
func (op *Operator) bury(ctx context.Context, tx *sql.Tx, part int, rows []int64, a *Act) error {
	sqls := &op.d.operate.part[part]
	var there []int64
	var ids []string
	err := eachRow(ctx, tx, withIn(sqls.lock, len(rows)), idArgs(rows), func(scan scanner) error {
		var row int64
		var id []byte
		err := scan(&row, &id)
		there, ids = append(there, row), append(ids, string(id))
		return err
	})
	if err != nil || len(there) == 0 {
		return err
	}
	why := clip(fmt.Sprintf("%s by %s: %s", a.Verb, a.Actor, a.Reason), maxError)
	n := len(there)
	if err := exactly(ctx, tx, n, withIn(sqls.bury, n), idArgs(there, []byte(why))); err != nil {
		return err
	}
	a.moved(ids)
	return exactly(ctx, tx, n, withIn(sqls.remove, n), idArgs(there))
}

// exactly runs a statement that has to affect so many rows.
func exactly(ctx context.Context, tx *sql.Tx, want int, query string, args []any) error {
	n, err := execCount(ctx, tx, query, args...)
	if err == nil && n != int64(want) {
		err = fmt.Errorf("%d rows were affected, want %d: nothing was done", n, want)
	}
	return err
}
