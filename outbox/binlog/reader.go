package binlog

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/amends-dev/amends/outbox"
)

// sayPosition is how often a stream hears of transactions that wrote nothing to
// its partition.
const sayPosition = 200 * time.Millisecond

// mariadbPreparedXA is FL_PREPARED_XA of MariaDB's GTID event.
const mariadbPreparedXA = 64

var (
	// errXA is why a message goes to the dead letters in ModeLog.
	errXA = errors.New("binlog: it was written in an XA transaction, and whether that was committed the log alone " +
		"does not tell at this point: replay it if it was")
	errDefinition = errors.New("binlog: the definition of an outbox table has changed")
	errStatement  = errors.New("binlog: a statement wrote to an outbox table, and is in the log as such, without its rows")
)

// reader turns the events of a session into transactions of partitions. It is
// used by the syncer's goroutine. The position moves at the end of a transaction
// and never before: moved at its beginning, where its GTID is, it would say after
// a crash that rows were read which were still to come.
type reader struct {
	ctx   context.Context
	s     *Source
	table func(*replication.TableMapEvent) (int, bool)
	row   func(part int, values []any) (outbox.SourceRow, error)

	mu    sync.Mutex
	now   position // up to here everything was passed on
	place mysql.Position
	gtid  mysql.GTIDSet // of the transaction under way
	open  bool          // it ends with a commit, and not with its first statement
	xa    bool          // it is prepared only
	parts [outbox.Partitions]partRows
	said  time.Time // when streams heard of the position last
}

// partRows is what the transaction under way wrote to one partition.
type partRows struct {
	rows  []outbox.SourceRow
	bytes int
	begun bool  // some were passed on already
	err   error // why the stream cannot go on
}

func newReader(ctx context.Context, s *Source, srv *server, from position) *reader {
	return &reader{ctx: ctx, s: s, table: srv.partition, row: srv.row, now: from.clone(), place: from.at}
}

// at is where the reader is. Safe for concurrent use.
func (r *reader) at() position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now.clone()
}

// decode leaves the rows of other tables alone.
func (r *reader) decode(e *replication.RowsEvent, data []byte) error {
	pos, err := e.DecodeHeader(data)
	if err != nil {
		return err
	}
	if _, ours := r.table(e.Table); !ours {
		return nil
	}
	return e.DecodeData(pos, data)
}

// HandleEvent implements replication.EventHandler.
func (r *reader) HandleEvent(e *replication.BinlogEvent) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if e.Header.LogPos > 0 {
		r.place.Pos = e.Header.LogPos
	}
	switch ev := e.Event.(type) {
	case *replication.RotateEvent:
		r.rotate(ev)
	case *replication.GTIDEvent:
		return r.begin(ev)
	case *replication.GtidTaggedLogEvent:
		return r.begin(&ev.GTIDEvent)
	case *replication.MariadbGTIDEvent:
		return r.beginMariaDB(ev)
	case *replication.TransactionPayloadEvent:
		for _, inner := range ev.Events {
			inner.Header.LogPos = e.Header.LogPos // they have no place of their own
			if err := r.HandleEvent(inner); err != nil {
				return err
			}
		}
	case *replication.RowsEvent:
		return r.rows(e.Header.EventType, ev)
	case *replication.XIDEvent:
		return r.end(e.Header, true)
	case *replication.QueryEvent:
		return r.query(e.Header, ev)
	case *replication.GenericEvent:
		if e.Header.EventType == replication.XA_PREPARE_LOG_EVENT {
			if len(ev.Data) > 0 && ev.Data[0] != 0 { // it is committed in one phase
				r.failAll(errXA)
			}
			return r.end(e.Header, true)
		}
	}
	return nil
}

// rotate goes on with the next file. Between two transactions the position is
// then at its beginning, so that the file before it is not needed any more.
func (r *reader) rotate(e *replication.RotateEvent) {
	r.place = mysql.Position{Name: string(e.NextLogName), Pos: uint32(e.Position)} //nolint:gosec // files end at 4 GiB
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gtid == nil && !r.open {
		r.now.at = r.place
	}
}

func (r *reader) begin(e *replication.GTIDEvent) error {
	r.reset()
	if e.GNO == 0 { // anonymous: a server without GTIDs
		return nil
	}
	var err error
	r.gtid, err = e.GTIDNext()
	return err
}

func (r *reader) beginMariaDB(e *replication.MariadbGTIDEvent) error {
	r.reset()
	r.open, r.xa = !e.IsStandalone(), e.Flags&mariadbPreparedXA != 0
	var err error
	r.gtid, err = e.GTIDNext()
	return err
}

func (r *reader) reset() {
	r.gtid, r.open, r.xa = nil, false, false
	r.parts = [outbox.Partitions]partRows{}
}

// query looks for the ends of transactions, and for what rows do not tell.
func (r *reader) query(h *replication.EventHeader, e *replication.QueryEvent) error {
	text := strings.ToUpper(strings.TrimSpace(string(e.Query[:min(len(e.Query), 32)])))
	switch {
	case text == "BEGIN":
		r.open = true
		return nil
	case strings.HasPrefix(text, "XA START"), strings.HasPrefix(text, "XA BEGIN"):
		r.open, r.xa = true, true
		return nil
	case text == "COMMIT":
		return r.end(h, true)
	case text == "ROLLBACK": // with changes of tables that cannot be rolled back
		return r.end(h, false)
	case strings.HasPrefix(text, "XA COMMIT"):
		r.failAll(errXA) // what was in it is in the table now, and was not passed on
		return r.end(h, true)
	case strings.HasPrefix(text, "XA ROLLBACK"):
		return r.end(h, true)
	}
	var changed error
	if bytes.Contains(e.Query, []byte("amends_outbox_")) && string(e.Schema) == r.s.cfg.Database {
		changed = r.changed(text, e)
	}
	if !r.open {
		if err := r.end(h, true); err != nil {
			return err
		}
	}
	return changed
}

// changed deals with a statement that names an outbox table. An error begins a
// new session, which asks for the columns again.
func (r *reader) changed(text string, e *replication.QueryEvent) error {
	for _, word := range []string{"INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD"} {
		if !strings.HasPrefix(text, word) {
			continue
		}
		r.failAll(errStatement)
		if r.s.cfg.Mode == ModeLog && word != "DELETE" {
			r.s.stats.lost.Add(1)
			r.s.cfg.Logger.Error("outbox: binlog: messages are lost: a session writes with binlog_format other than ROW: "+
				"the values are not in the log", "position", r.now.String(), "statement", string(e.Query[:min(len(e.Query), 200)]))
		}
		return nil
	}
	if r.open {
		return nil
	}
	return errDefinition
}

// end ends the transaction under way. keep: it was committed.
func (r *reader) end(h *replication.EventHeader, keep bool) error {
	next := r.now.clone() // only this goroutine writes it
	if r.gtid != nil {
		if next.gtid == nil {
			return errors.New("binlog: the server has switched GTIDs on: beginning anew")
		}
		if err := next.gtid.Update(r.gtid.String()); err != nil {
			return err
		}
	}
	next.at, next.when = r.place, time.Unix(int64(h.Timestamp), 0)
	text := ""
	if r.s.cfg.Mode == ModeLog {
		var err error
		if text, err = next.text(); err != nil {
			return err
		}
	} else {
		text = "-" // it only has to be there
	}
	say := time.Since(r.said) >= sayPosition
	for n := range r.parts {
		if !keep {
			r.parts[n].rows = nil
		}
		if part := &r.parts[n]; part.err != nil {
			r.fail(n, part.err)
		}
		r.pass(n, text, say)
	}
	if say {
		r.said = time.Now()
	}
	r.mu.Lock()
	r.now = next
	r.mu.Unlock()
	r.advance(next)
	r.reset()
	r.s.stats.transactions.Add(1)
	return nil
}

// pass hands a partition's rows on, and without rows, when say is set, how far
// it is in the log. Without a position the transaction goes on.
func (r *reader) pass(n int, text string, say bool) {
	part := &r.parts[n]
	none := len(part.rows) == 0 && !part.begun
	if none && (r.s.cfg.Mode == ModeTable || !say) {
		return
	}
	r.s.stats.rows.Add(uint64(len(part.rows)))
	tx := outbox.SourceTx{Rows: part.rows, Position: text}
	for _, st := range r.s.all() {
		if st.part == n && st.reached(r) {
			st.put(r.ctx, tx, part.bytes)
		}
	}
	part.rows, part.bytes, part.begun = nil, 0, text == ""
}

// advance tells the streams that they have everything up to a position.
func (r *reader) advance(to position) {
	if r.s.cfg.Mode == ModeTable {
		return
	}
	for _, st := range r.s.all() {
		st.mu.Lock()
		if st.err == nil && st.aligned {
			st.read = to
		}
		st.mu.Unlock()
	}
}

func (r *reader) failAll(why error) {
	for n := range r.parts {
		r.fail(n, why)
	}
}

// fail sends a partition back to its table.
func (r *reader) fail(n int, why error) {
	if r.s.cfg.Mode == ModeLog {
		return
	}
	for _, st := range r.s.all() {
		if st.part == n {
			st.fail(why)
		}
	}
}
