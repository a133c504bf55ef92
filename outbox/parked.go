package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
)

// parkedNumbers tells parked messages from other dead letters, by their numbers:
// it is above those of the one, and is added to the rows aside of the other.
const parkedNumbers = 1_000_000_000_000

// splitParked answers the numbers of dead letters, and the rows aside of those
// that are parked.
func splitParked(numbers []int64) (letters, aside []int64) {
	for _, n := range numbers {
		if n > parkedNumbers {
			aside = append(aside, n-parkedNumbers)
		} else {
			letters = append(letters, n)
		}
	}
	return letters, aside
}

// asideRow is a row aside as acts need it.
type asideRow struct {
	id        int64
	part      int
	msgID     string
	key       string
	notBefore int64
	dueAt     int64
}

// parkedVerb acts on rows aside, which are locked.
type parkedVerb func(ctx context.Context, tx *sql.Tx, d *Dialect, rows []asideRow) error

// onParked acts on parked messages. With all set each has to be there.
//
// Locking the partitions' leases makes acts and settlements wait for each other:
// what a relay puts aside behind a key finds it as it is after the act.
func onParked(ctx context.Context, tx *sql.Tx, d *Dialect, ids []int64, all bool, a *Act, verb parkedVerb) error {
	if len(ids) == 0 {
		return nil
	}
	if err := lockParts(ctx, tx, d); err != nil {
		return err
	}
	rows, err := lockAside(ctx, tx, d, ids)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(r asideRow) bool { return r.dueAt != parked })
	if all {
		for _, id := range ids {
			byID := func(r asideRow, id int64) int { return cmp.Compare(r.id, id) }
			if _, ok := slices.BinarySearchFunc(rows, id, byID); !ok {
				return fmt.Errorf("%w: number %d", ErrNoDeadLetter, id+parkedNumbers)
			}
		}
	}
	a.moved(msgIDs(rows))
	return verb(ctx, tx, d, rows)
}

func msgIDs(rows []asideRow) []string {
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].msgID
	}
	return ids
}

func lockParts(ctx context.Context, tx *sql.Tx, d *Dialect) error {
	for part := range Partitions {
		if err := lockPart(ctx, tx, d, part); err != nil {
			return err
		}
	}
	return nil
}

func lockPart(ctx context.Context, tx *sql.Tx, d *Dialect, part int) error {
	var epoch int64
	if err := tx.QueryRowContext(ctx, d.aside.lock, part).Scan(&epoch); err != nil {
		return fmt.Errorf("lock partition %d (was outbox.Migrate run?): %w", part, err)
	}
	return nil
}

// lockAside locks those of some rows aside that are there, and answers them in
// order.
func lockAside(ctx context.Context, tx *sql.Tx, d *Dialect, ids []int64) (rows []asideRow, err error) {
	for chunk := range slices.Chunk(slices.Sorted(slices.Values(ids)), actChunk) {
		err = eachRow(ctx, tx, withIn(d.aside.lockIn, len(chunk)), idArgs(chunk), func(scan scanner) error {
			var r asideRow
			var id, key []byte
			err := scan(&r.id, &r.part, &id, &key, &r.notBefore, &r.dueAt)
			r.msgID, r.key = string(id), string(key)
			rows = append(rows, r)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// discardParked deletes rows aside.
func discardParked(ctx context.Context, tx *sql.Tx, d *Dialect, rows []asideRow) error {
	ids := make([]int64, len(rows))
	for i := range rows {
		ids[i] = rows[i].id
	}
	return inChunks(ids, func(chunk []int64) error {
		return exactly(ctx, tx, len(chunk), withIn(d.aside.removeIn, len(chunk)), idArgs(chunk))
	})
}

// keyAt is a key in a partition.
type keyAt struct {
	part int
	key  string
}

// replayParked makes parked rows due again, if none of them is behind a row of
// its key that stays parked.
func replayParked(ctx context.Context, tx *sql.Tx, d *Dialect, rows []asideRow) error {
	chosen := map[int64]bool{}
	last := map[keyAt]int64{}
	for _, r := range rows {
		chosen[r.id] = true
		if r.key != "" {
			last[keyAt{r.part, r.key}] = r.id
		}
	}
	due := map[keyAt]int64{} // of the row before, of each key
	for k, id := range last {
		if err := noneBefore(ctx, tx, d, k, id, chosen); err != nil {
			return err
		}
		var before int64
		if err := tx.QueryRowContext(ctx, d.aside.due, k.part, []byte(k.key)).Scan(&before); err != nil {
			return err
		}
		due[k] = before
	}
	return release(ctx, tx, d, rows, due)
}

// noneBefore refuses to leave parked rows of a key behind.
func noneBefore(ctx context.Context, tx *sql.Tx, d *Dialect, k keyAt, id int64, chosen map[int64]bool) error {
	return eachRow(ctx, tx, d.aside.before, []any{k.part, []byte(k.key), id}, func(scan scanner) error {
		var before int64
		if err := scan(&before); err != nil || chosen[before] {
			return err
		}
		return fmt.Errorf("%w: dead letter %d is parked behind %d of its key %q: replay or discard that first, or all of the key",
			ErrAct, id+parkedNumbers, before+parkedNumbers, k.key)
	})
}

// release makes rows aside, of each key in order, due at their NotBefore, but none
// before the one in front of it.
func release(ctx context.Context, tx *sql.Tx, d *Dialect, rows []asideRow, due map[keyAt]int64) error {
	at := map[int64][]int64{}
	for _, r := range rows {
		t := r.notBefore
		if r.key != "" {
			k := keyAt{r.part, r.key}
			t = max(t, due[k])
			due[k] = t
		}
		at[t] = append(at[t], r.id)
	}
	for t, ids := range at {
		err := inChunks(ids, func(chunk []int64) error {
			_, err := tx.ExecContext(ctx, withIn(d.aside.release, len(chunk)), idArgs(chunk, t)...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func inChunks(ids []int64, do func(chunk []int64) error) error {
	for chunk := range slices.Chunk(ids, actChunk) {
		if err := do(chunk); err != nil {
			return err
		}
	}
	return nil
}

// rowsOfKey are the rows aside of a key, in order.
func (op *Operator) rowsOfKey(ctx context.Context, tx *sql.Tx, part int, key string) (rows []asideRow, err error) {
	err = eachRow(ctx, tx, op.d.aside.rows, []any{part, []byte(key)}, func(scan scanner) error {
		r := asideRow{part: part, key: key}
		err := scan(&r.id, &r.notBefore, &r.dueAt)
		rows = append(rows, r)
		return err
	})
	return rows, err
}

// skipAside buries a row aside. What is behind it, if it was the first of its key,
// goes on.
func (op *Operator) skipAside(ctx context.Context, tx *sql.Tx, at Position, a *Act) error {
	if err := lockPart(ctx, tx, op.d, at.Partition); err != nil {
		return err
	}
	rows, err := lockAside(ctx, tx, op.d, []int64{at.Row})
	if err != nil || len(rows) == 0 || rows[0].part != at.Partition {
		return err
	}
	key := rows[0].key
	ofKey, err := op.rowsOfKey(ctx, tx, at.Partition, key)
	if err != nil {
		return err
	}
	if err := op.buryAside(ctx, tx, rows, a); err != nil {
		return err
	}
	if key == "" || ofKey[0].id != at.Row {
		return nil
	}
	return release(ctx, tx, op.d, ofKey[1:], map[keyAt]int64{})
}

// parkAside buries the rows aside of a key that are not parked.
func (op *Operator) parkAside(ctx context.Context, tx *sql.Tx, part int, key string, a *Act) error {
	if err := lockPart(ctx, tx, op.d, part); err != nil {
		return err
	}
	ofKey, err := op.rowsOfKey(ctx, tx, part, key)
	if err != nil {
		return err
	}
	var ids []int64
	for _, r := range ofKey {
		if r.dueAt != parked {
			ids = append(ids, r.id)
		}
	}
	rows, err := lockAside(ctx, tx, op.d, ids)
	if err != nil {
		return err
	}
	return op.buryAside(ctx, tx, rows, a)
}

// buryAside moves rows aside, which are locked, to the dead letters.
func (op *Operator) buryAside(ctx context.Context, tx *sql.Tx, rows []asideRow, a *Act) error {
	why := clip(fmt.Sprintf("%s by %s: %s", a.Verb, a.Actor, a.Reason), maxError)
	ids := make([]int64, len(rows))
	for i := range rows {
		ids[i] = rows[i].id
	}
	err := inChunks(ids, func(chunk []int64) error {
		return exactly(ctx, tx, len(chunk), withIn(op.d.aside.bury, len(chunk)), idArgs(chunk, []byte(why)))
	})
	if err != nil {
		return err
	}
	a.moved(msgIDs(rows))
	return discardParked(ctx, tx, op.d, rows)
}
