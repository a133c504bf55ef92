package inbox

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// MaxMarkID is the longest Place.ID that is kept as it is, in bytes; a digest stands for a longer one.
const MaxMarkID = 128

// ErrSequence is returned for a message that has the Seq of another one of its key: its source does not count, or has
// begun anew. It wraps outbox.ErrPoison, as no retry mends it.
var ErrSequence = fmt.Errorf("inbox: another message of the key has the same sequence number: %w", outbox.ErrPoison)

// Place is where a message stands in its source.
type Place struct {
	// Key is what the source keeps in order. Required.
	Key string
	// Seq grows with each message of Key; gaps are allowed. Above math.MinInt64.
	Seq int64
	// ID is the message's id. Required for SetAside; otherwise it lets OnceAbove find two messages with one Seq.
	ID string
}

// OnceAbove is Once for sources whose messages of one key come in a growing sequence: it remembers one number per key
// instead of one row per message. first is false, and fn does not run, when at.Seq is not above the highest that was
// handled of at.Key.
//
// It needs that the messages of a key come in the order of Seq, whatever comes again: one that comes late, after a
// higher one was handled, is taken for a duplicate and never handled. So whoever gives a message up, to go on with the
// next one of its key, calls SetAside first. The row of the key is locked until the transaction ends.
func (in *Inbox) OnceAbove(ctx context.Context, db *sql.DB, at Place, fn func(tx *sql.Tx) error) (first bool, err error) {
	key, err := in.markKey(at)
	if err != nil {
		return false, err
	}
	return in.once(ctx, db, in.above(ctx, key, at), fn)
}

// above raises the mark of a key first, and decides after.
func (in *Inbox) above(ctx context.Context, key string, at Place) claiming {
	return func(tx *sql.Tx) (bool, error) {
		s, id := statementsOf(in.d), markID(at.ID)
		if _, err := tx.ExecContext(ctx, s.mark, []byte(key), at.Seq, id, at.Seq, id, at.Seq); err != nil {
			return false, fmt.Errorf("inbox: mark %q: %w", key, err)
		}
		m, err := readMarkOf(ctx, tx, s, key)
		if err != nil {
			return false, err
		}
		switch {
		case at.Seq == m.prior && at.ID != "" && len(m.id) > 0 && string(m.id) != string(id):
			return false, fmt.Errorf("%w: number %d of key %q is message %q, and not %q", ErrSequence, at.Seq, at.Key, m.id, id)
		case at.Seq <= m.prior || at.Seq < m.aside:
			return false, nil
		case at.Seq == m.aside:
			return in.claimID(ctx, tx, at.ID)
		}
		return true, nil
	}
}

func (in *Inbox) claimID(ctx context.Context, tx *sql.Tx, id string) (bool, error) {
	key, err := in.Key(id)
	if err != nil {
		return false, err
	}
	return in.claims(ctx, key)(tx)
}

// SetAside lets the message at a place be given up for now: later ones of its key may be handled, and this one, which
// from now on is known by the claim of its id, by Once, whenever it comes again. Call it before the message is handed
// to wherever it waits. Set aside one message of a key after the other. It is false for a message that has been
// handled, or was set aside before a later one: then there is nothing to give up.
func (in *Inbox) SetAside(ctx context.Context, db *sql.DB, at Place) (bool, error) {
	key, err := in.markKey(at)
	if err == nil && at.ID == "" {
		err = fmt.Errorf("%w: a message without an id cannot be set aside", ErrKey)
	}
	if err != nil {
		return false, err
	}
	for tries := 1; ; tries++ {
		is, err := in.setAside(ctx, db, key, at)
		if err == nil || tries == claimTries || !in.d.Retryable(err) || ctx.Err() != nil {
			return is, err
		}
	}
}

func (in *Inbox) setAside(ctx context.Context, db *sql.DB, key string, at Place) (is bool, err error) {
	s := statementsOf(in.d)
	err = outbox.InTx(ctx, db, nil, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, s.touch, []byte(key)); err != nil {
			return fmt.Errorf("inbox: mark %q: %w", key, err)
		}
		m, err := readMarkOf(ctx, tx, s, key)
		if err != nil {
			return err
		}
		if is = at.Seq > m.mark && at.Seq >= m.aside; !is {
			return nil
		}
		if at.Seq > m.aside && m.aside > m.mark { // what was aside has been settled: its key has gone on
			m.mark, m.id = m.aside, []byte{}
		}
		_, err = tx.ExecContext(ctx, s.setAside, m.mark, at.Seq, m.id, []byte(key))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("inbox: set aside: %w", err)
	}
	return is, nil
}

// mark is a row of amends_inbox_marks.
type mark struct {
	mark, prior, aside int64
	id                 []byte
}

func readMarkOf(ctx context.Context, tx *sql.Tx, s *statements, key string) (m mark, err error) {
	row := tx.QueryRowContext(ctx, s.readMark, []byte(key))
	if err := row.Scan(&m.mark, &m.prior, &m.aside, &m.id); err != nil {
		return mark{}, fmt.Errorf("inbox: read the mark of %q: %w", key, err)
	}
	if m.id == nil { // a driver's way to say empty, which it would write as NULL
		m.id = []byte{}
	}
	return m, nil
}

func (in *Inbox) markKey(at Place) (string, error) {
	if at.Key == "" {
		return "", fmt.Errorf("%w: the place has no key: use Once for messages without one", ErrKey)
	}
	if at.Seq == math.MinInt64 {
		return "", fmt.Errorf("%w: the place's Seq is %d: count from any higher number", ErrKey, at.Seq)
	}
	return in.Key(at.Key)
}

func markID(id string) []byte {
	if len(id) > MaxMarkID {
		sum := sha256.Sum256([]byte(id))
		id = "sha256:" + hex.EncodeToString(sum[:])
	}
	return []byte(id)
}

// PurgeMarks forgets up to limit marks that no message has touched since a time by the database's clock, and answers
// how many. A message of such a key that comes again is handled again: keep marks as long as claims (see Purge). It
// reads the table through, which has one row per key. Call it until it answers less than limit.
func PurgeMarks(ctx context.Context, db *sql.DB, d *outbox.Dialect, before time.Time, limit int) (int, error) {
	return purge(ctx, db, d, statementsOf(d).purgeMarks, before, limit)
}

// PurgeParked lets go of up to limit parked messages (ConsumerConfig.KeepOrder) that were parked before a time by the
// database's clock, and answers how many. It is for what can never come: a message that retention has deleted from a
// retry topic, whose key waits for it. Where such a message does come it is skipped, so use a time before the retry
// topics' retention.
func PurgeParked(ctx context.Context, db *sql.DB, d *outbox.Dialect, before time.Time, limit int) (int, error) {
	return purge(ctx, db, d, statementsOf(d).unparkOld, before, limit)
}

// purge runs a statement that deletes what is older than a time, up to a limit.
func purge(ctx context.Context, db *sql.DB, d *outbox.Dialect, stmt string, before time.Time, limit int) (int, error) {
	if limit <= 0 {
		return 0, errors.New("inbox: purge: the limit must be above 0")
	}
	var n int64
	err := outbox.InTx(ctx, db, &sql.TxOptions{Isolation: d.InboxSQL().Isolation}, func(tx *sql.Tx) (err error) {
		n, err = affected(tx.ExecContext(ctx, stmt, before.UnixMicro(), limit))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("inbox: purge: %w", err)
	}
	return int(n), nil
}

// HighWater is how a Consumer knows a message again; see ConsumerConfig.HighWater.
type HighWater int

const (
	// HighWaterOff remembers each message by its id.
	HighWaterOff HighWater = iota
	// HighWaterSeq remembers, for each topic and key, the highest number in the header HeaderSeq, a decimal integer.
	HighWaterSeq
	// HighWaterOffset remembers, for each partition and key, the highest offset. It knows again what Kafka delivers
	// again, and not what was published twice.
	HighWaterOffset
)

// HeaderSeq is the header that holds a message's place in the sequence of its key, for HighWaterSeq: a decimal integer
// of 64 bits that grows with each message of the key in its topic, such as the version of the row that it is about.
const HeaderSeq = "amends-seq"
