package engine

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// moody participants do what their service's name says.
func moody(c dispatch.Call) txn.Replied {
	mood, _ := txn.SplitAction(c.Action)
	verbs := strings.Split(mood, "-")
	for i := 0; i+1 < len(verbs); i += 2 {
		if verbs[i] != c.Op.String() {
			continue
		}
		switch verbs[i+1] {
		case "hangs":
			return txn.Replied{}
		case "fails":
			return txn.Replied{Outcome: txn.Unknown, Message: "no answer"}
		case "refuses":
			return txn.Replied{Outcome: txn.Refused, Message: "no"}
		}
	}
	return ok(c)
}

func moodySaga(services ...string) *saga.Definition {
	d := &saga.Definition{Name: "fixture", Timeout: 24 * time.Hour}
	for i, s := range services {
		name := string(rune('a' + i))
		st := saga.Step{Name: name, Action: s + "." + name, Payload: []byte(`{"n":1}`),
			Retry: txn.Retry{Initial: time.Minute, Attempts: 99}}
		if i > 0 {
			st.After = []int{i - 1}
		}
		d.Steps = append(d.Steps, st)
	}
	return d
}

// makeRows brings transactions into every kind of state, and returns their rows.
func makeRows(t *testing.T) (rows []fixtureRow) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, &Config{StallAfter: 2 * time.Minute}, moody)
		r.startSaga("warm-up", steps(1))
		gids := append(append(r.makeSagas(t), r.makeTCCs(t)...), r.makeBulk(t))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for _, gid := range gids {
			rec, err := st.Load(t.Context(), gid)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, fixtureRow{Record: rec, Events: checkTrail(t, st, gid)})
		}
	})
	return rows
}

func (r *running) makeSagas(t *testing.T) (gids []string) {
	start := func(gid string, d *saga.Definition, labels map[string]string) string {
		if _, _, err := r.StartSaga(t.Context(), gid, d, labels); err != nil {
			t.Fatal(err)
		}
		gids = append(gids, gid)
		return gid
	}
	start("saga-committed", moodySaga("calm", "calm"), map[string]string{"tenant": "Ünïted", "order": "17"})
	start("saga-rolled-back", moodySaga("calm", "do-refuses"), nil)
	start("saga-stalled", moodySaga("calm", "do-hangs", "calm"), nil)
	start(wire.Key("blue", "saga-retried"), moodySaga("calm", "do-fails"), map[string]string{"tenant": "blue"})
	start("saga-turning-back", moodySaga("calm", "undo-hangs", "do-refuses"), nil)
	start("saga-parked", moodySaga("undo-refuses", "do-refuses"), nil)
	pivot := moodySaga("calm", "calm", "do-refuses")
	pivot.Steps[1].Kind, pivot.Steps[2].Kind = saga.Pivot, saga.Retriable
	start("saga-parked-past-its-pivot", pivot, nil)
	paused := start("saga-paused", moodySaga("do-fails", "calm"), nil)
	skipped := start("saga-skipped", moodySaga("do-hangs", "do-hangs"), nil)
	abandoned := start("saga-abandoned", moodySaga("do-hangs"), nil)
	synctest.Wait()
	for _, c := range []Command{
		pauseOf(paused),
		{Verb: skip, GID: skipped, Branch: "a", RequestID: "r2"},
		{Verb: abandon, GID: abandoned},
	} {
		r.mustAct(c)
	}
	return gids
}

func (r *running) makeTCCs(t *testing.T) (gids []string) {
	begin := func(gid string, check string, branches ...string) string {
		d := &tcc.Definition{Name: "fixture", Timeout: 3 * time.Minute}
		if check != "" {
			d.Check = tcc.CheckBack{Action: check + ".check"}
		}
		if _, _, err := r.BeginTCC(t.Context(), gid, d, nil); err != nil {
			t.Fatal(err)
		}
		for i, s := range branches {
			name := string(rune('a' + i))
			b := tcc.Branch{Name: name, Action: s + "." + name, Payload: []byte(`{"n":1}`), Retry: txn.Retry{Initial: time.Minute}}
			go func() { _, _ = r.Try(t.Context(), gid, b) }() // some hang
			synctest.Wait()
		}
		gids = append(gids, gid)
		return gid
	}
	commit := func(gid string) {
		if _, err := r.Commit(t.Context(), gid); err != nil {
			t.Fatal(err)
		}
	}
	commit(begin("tcc-committed", "", "calm", "calm"))
	commit(begin("tcc-committing", "", "calm", "confirm-hangs"))
	commit(begin("tcc-confirm-refused", "", "confirm-refuses", "calm"))
	begin("tcc-rolled-back", "", "calm", "try-refuses")
	begin("tcc-cancelling", "", "calm", "cancel-fails", "try-refuses")
	begin("tcc-expired", "", "try-hangs-cancel-hangs")
	begin("tcc-checked", "check-fails", "calm")
	gid := begin(wire.Key("blue", "tcc-paused"), "", "calm")
	r.mustAct(pauseOf(gid))
	return gids
}

func (r *running) makeBulk(t *testing.T) string {
	id := wire.BulkKey("", "bulk-1")
	b := Bulk{ID: id, Verb: retry, Filter: `name = "fixture"`, Query: store.Query{Name: "fixture", Unfinished: true},
		Rate: 0.01, Reason: "because", Actor: "alice"}
	if _, _, err := r.StartBulk(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return id
}
