package binlog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/google/uuid"
)

var sid = uuid.MustParse("3e11fa47-71ca-11e1-9e33-c80aa9429562")

// events feeds a reader, with a stream for partition 0 that began where it does.
type events struct {
	t *testing.T
	r *reader
	s *stream
}

func newEvents(t *testing.T, mode Mode, flavor, gtid string) *events {
	t.Helper()
	src, err := New(Config{Addr: "a", User: "u", Database: "db", Mode: mode, Heartbeat: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	at := position{flavor: flavor, at: mysql.Position{Name: "bin.1", Pos: 4}}
	if gtid != "" {
		if at.gtid, err = mysql.ParseGTIDSet(flavor, gtid); err != nil {
			t.Fatal(err)
		}
	}
	srv := &server{cfg: &src.cfg}
	for p := range srv.columns {
		srv.columns[p] = []int{0, 1}
	}
	st := &stream{s: src, wake: func() {}, room: make(chan struct{}, 1), joined: true, read: at, settled: at}
	src.streams[st] = true
	return &events{t: t, r: newReader(context.Background(), src, srv, at), s: st}
}

func (e *events) feed(pos uint32, typ replication.EventType, ev replication.Event) {
	e.t.Helper()
	h := &replication.EventHeader{EventType: typ, LogPos: pos, Timestamp: 1000 + pos}
	if err := e.r.HandleEvent(&replication.BinlogEvent{Header: h, Event: ev}); err != nil {
		e.t.Fatal(err)
	}
}

func (e *events) gtid(n int64) {
	e.feed(10, replication.GTID_EVENT, &replication.GTIDEvent{SID: sid[:], GNO: n})
}

func (e *events) query(pos uint32, text string) {
	e.t.Helper()
	e.feed(pos, replication.QUERY_EVENT, &replication.QueryEvent{Schema: []byte("db"), Query: []byte(text)})
}

func (e *events) insert(table string, id int64) {
	e.t.Helper()
	e.feed(20, replication.WRITE_ROWS_EVENTv2, &replication.RowsEvent{
		Table: &replication.TableMapEvent{Schema: []byte("db"), Table: []byte(table)},
		Rows:  [][]any{{id, "m"}}, SkippedColumns: [][]int{nil},
	})
}

func (e *events) xid(pos uint32) { e.feed(pos, replication.XID_EVENT, &replication.XIDEvent{}) }

// ids takes what the stream has.
func (e *events) ids() (ids []int64, last string) {
	e.t.Helper()
	txs, err := e.s.Next()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, tx := range txs {
		for _, row := range tx.Rows {
			ids = append(ids, row.Values[0].(int64))
		}
		last = tx.Position
	}
	return ids, last
}

// TestPositionMovesAtTheEnd: a position that is taken after the beginning of a
// transaction does not contain it, on MySQL and on MariaDB.
func TestPositionMovesAtTheEnd(t *testing.T) {
	for _, tc := range []struct {
		name, flavor, from, to string
		begin                  func(e *events)
	}{
		{"mysql", mysql.MySQLFlavor, sid.String() + ":1-5", sid.String() + ":1-6", func(e *events) {
			e.gtid(6)
			e.query(15, "BEGIN")
		}},
		{"mariadb", mysql.MariaDBFlavor, "0-1-5", "0-1-6", func(e *events) {
			gtid := mysql.MariadbGTID{ServerID: 1, SequenceNumber: 6}
			e.feed(10, replication.MARIADB_GTID_EVENT, &replication.MariadbGTIDEvent{GTID: gtid})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := newEvents(t, ModeLog, tc.flavor, tc.from)
			tc.begin(e)
			e.insert("amends_outbox_0", 1)
			e.query(22, "SAVEPOINT a")
			e.query(23, "INSERT INTO other VALUES (1)") // a mixed transaction is not at its end here
			e.insert("amends_outbox_0", 2)
			if got := e.r.at(); got.gtid.String() != tc.from || got.at.Pos != 4 {
				t.Errorf("in the middle of the transaction the position is %v, want %s", got, tc.from)
			}
			if ids, _ := e.ids(); len(ids) > 0 {
				t.Errorf("rows %v were passed on before the end", ids)
			}
			e.xid(30)
			if got := e.r.at(); got.gtid.String() != tc.to || got.at.Pos != 30 || got.when.Unix() != 1030 {
				t.Errorf("behind the transaction the position is %v, want %s", got, tc.to)
			}
			ids, last := e.ids()
			p, err := parsePosition(last)
			if err != nil || len(ids) != 2 || p.gtid.String() != tc.to {
				t.Errorf("rows %v with position %v, %v", ids, p, err)
			}
		})
	}
}

func TestTransactionsEnd(t *testing.T) {
	for _, tc := range []struct {
		name string
		feed func(e *events)
		want int
	}{
		{"xid", func(e *events) { e.insert("amends_outbox_0", 1); e.xid(30) }, 1},
		{"commit", func(e *events) { e.insert("amends_outbox_0", 1); e.query(30, "COMMIT") }, 1},
		{"rollback", func(e *events) { e.insert("amends_outbox_0", 1); e.query(30, "ROLLBACK") }, 0},
		{"to savepoint", func(e *events) { e.insert("amends_outbox_0", 1); e.query(25, "ROLLBACK TO `a`"); e.xid(30) }, 1},
		{"other tables", func(e *events) {
			e.insert("amends_outbox_dead", 1)
			e.insert("amends_outbox_9", 2)
			e.insert("x", 3)
			e.xid(30)
		}, 0},
		{"other partition", func(e *events) { e.insert("amends_outbox_1", 1); e.xid(30) }, 0},
		{"compressed", func(e *events) {
			inner := []*replication.BinlogEvent{
				{Header: &replication.EventHeader{EventType: replication.WRITE_ROWS_EVENTv2}, Event: &replication.RowsEvent{
					Table: &replication.TableMapEvent{Schema: []byte("db"), Table: []byte("amends_outbox_0")},
					Rows:  [][]any{{int64(1), "m"}, {int64(2), "m"}}}},
				{Header: &replication.EventHeader{EventType: replication.XID_EVENT}, Event: &replication.XIDEvent{}},
			}
			e.feed(30, replication.TRANSACTION_PAYLOAD_EVENT, &replication.TransactionPayloadEvent{Events: inner})
		}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := newEvents(t, ModeTable, mysql.MySQLFlavor, sid.String()+":1-5")
			e.gtid(6)
			e.query(15, "BEGIN")
			tc.feed(e)
			if ids, _ := e.ids(); len(ids) != tc.want {
				t.Errorf("rows %v, want %d", ids, tc.want)
			}
			if got := e.r.at().String(); got != "GTID "+sid.String()+":1-6, (bin.1, 30)" {
				t.Errorf("position %s", got)
			}
		})
	}
}

// TestWhatRowsDoNotTell sends a partition back to its table.
func TestWhatRowsDoNotTell(t *testing.T) {
	for _, tc := range []struct {
		name string
		feed func(e *events)
		want error
	}{
		{"statement", func(e *events) {
			e.query(15, "BEGIN")
			e.query(20, "insert into amends_outbox_0 values (1)")
		}, errStatement},
		{"update", func(e *events) {
			e.feed(20, replication.UPDATE_ROWS_EVENTv2, &replication.RowsEvent{
				Table: &replication.TableMapEvent{Schema: []byte("db"), Table: []byte("amends_outbox_0")}})
			e.xid(30)
		}, errRows},
		{"xa", func(e *events) {
			e.query(15, "XA START X'61',X'',1")
			e.insert("amends_outbox_0", 1)
			e.query(25, "XA END X'61',X'',1")
			e.feed(30, replication.XA_PREPARE_LOG_EVENT, &replication.GenericEvent{Data: []byte{0}})
			if ids, _ := e.ids(); len(ids) > 0 {
				e.t.Errorf("prepared rows %v were passed on", ids)
			}
			e.gtid(7)
			e.query(40, "XA COMMIT X'61',X'',1")
		}, errXA},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := newEvents(t, ModeTable, mysql.MySQLFlavor, sid.String()+":1-5")
			e.gtid(6)
			tc.feed(e)
			if _, err := e.s.Next(); !errors.Is(err, tc.want) {
				t.Errorf("the stream ended with %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("definition", func(t *testing.T) {
		e := newEvents(t, ModeTable, mysql.MySQLFlavor, "")
		h := &replication.EventHeader{LogPos: 30}
		err := e.r.HandleEvent(&replication.BinlogEvent{Header: h, Event: &replication.QueryEvent{
			Schema: []byte("db"), Query: []byte("ALTER TABLE amends_outbox_0 ADD COLUMN c INT")}})
		if !errors.Is(err, errDefinition) || e.r.at().at.Pos != 30 {
			t.Errorf("%v at %v: want a new session, behind the statement", err, e.r.at())
		}
	})
	t.Run("xa alone", func(t *testing.T) {
		e := newEvents(t, ModeLog, mysql.MySQLFlavor, sid.String()+":1-5")
		e.gtid(6)
		e.query(15, "XA START X'61',X'',1")
		e.insert("amends_outbox_0", 1)
		e.feed(30, replication.XA_PREPARE_LOG_EVENT, &replication.GenericEvent{Data: []byte{0}})
		txs, err := e.s.Next()
		if err != nil || len(txs) != 1 || !errors.Is(txs[0].Rows[0].Err, errXA) {
			t.Errorf("%+v, %v: want a message that is poison", txs, err)
		}
	})
}

// TestStreamIsBounded has a relay that takes nothing.
func TestStreamIsBounded(t *testing.T) {
	for _, mode := range []Mode{ModeTable, ModeLog} {
		e := newEvents(t, mode, mysql.MySQLFlavor, sid.String()+":1-5")
		e.r.s.cfg.MaxRows = 10
		for n := int64(6); n < 30; n++ {
			e.gtid(n)
			e.insert("amends_outbox_0", n)
			e.xid(30)
		}
		txs := e.s.queue
		if len(txs) != 10 {
			t.Errorf("mode %d: %d rows in memory, want 10", mode, len(txs))
		}
		_, err := e.s.Next()
		if mode == ModeLog { // what is there comes first, and reading goes on behind it
			last, perr := parsePosition(txs[9].Position)
			if err != nil || perr != nil || e.s.read.gtid.String() != last.gtid.String() {
				t.Errorf("read up to %v, want %v: %v", e.s.read, last, errors.Join(err, perr))
			}
			_, err = e.s.Next()
		}
		if !errors.Is(err, errBehind) {
			t.Errorf("mode %d: the stream ended with %v", mode, err)
		}
	}
}

// TestStreamPassesOverWhatItHas reads from before a stream's position.
func TestStreamPassesOverWhatItHas(t *testing.T) {
	e := newEvents(t, ModeLog, mysql.MySQLFlavor, sid.String()+":1-5")
	e.s.read, _ = parsePosition(`{"flavor":"mysql","gtid":"` + sid.String() + `:1-8","file":"bin.1","pos":4}`)
	late := &stream{s: e.r.s, wake: func() {}, room: make(chan struct{}, 1), read: e.r.at()}
	e.r.s.streams[late] = true // opened when the session was under way
	for n := int64(6); n < 12; n++ {
		e.gtid(n)
		e.insert("amends_outbox_0", n)
		e.xid(30)
	}
	if ids, _ := e.ids(); len(ids) != 3 || ids[0] != 9 {
		t.Errorf("rows %v, want 9, 10, 11", ids)
	}
	if len(late.queue) > 0 {
		t.Error("a stream got rows from the middle of what it needs")
	}
}

func TestBigTransactionComesInParts(t *testing.T) {
	e := newEvents(t, ModeLog, mysql.MySQLFlavor, sid.String()+":1-5")
	e.r.s.cfg.MaxRows = 2
	e.gtid(6)
	e.query(15, "BEGIN")
	var rows int
	for n := int64(1); n <= 5; n++ {
		e.insert("amends_outbox_0", n)
		txs, err := e.s.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, tx := range txs {
			rows += len(tx.Rows)
			if tx.Position != "" {
				t.Error("a part has a position")
			}
		}
	}
	e.xid(30)
	ids, last := e.ids()
	if rows != 4 || len(ids) != 1 || last == "" {
		t.Errorf("%d rows in parts, then %v with position %q", rows, ids, last)
	}
}
