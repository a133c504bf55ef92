package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

var writeFixtures = flag.Bool("write-fixtures", false, "write testdata/compat of the present version")

// compatVersion is the version of what is stored and sent. What a released
// version has written must be readable for ever: when an encoding changes, raise
// it, write the fixtures of the new version with -write-fixtures, and leave those
// of the old ones as they are.
const compatVersion = "v0.4"

// fixtureRow is a transaction as a version has stored it.
type fixtureRow struct {
	Record store.Record
	Events []store.Event
}

// fixtures returns the files of that name of every version.
func fixtures(t *testing.T, name string) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/compat/*/" + name)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s under testdata/compat (%v): go test -run TestCompat -write-fixtures", name, err)
	}
	return paths
}

// readFixture reads JSON, and reports whether it is of the present version.
func readFixture(t *testing.T, path string, v any) (present bool) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(filepath.Dir(path)) == compatVersion
}

func writeFixture(t *testing.T, name string, v any) {
	t.Helper()
	dir := filepath.Join("testdata/compat", compatVersion)
	data, err := json.MarshalIndent(v, "", " ")
	if err == nil {
		err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), append(data, '\n'), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCompatRows: what every version has stored loads, is known when its start
// or an operator's request is repeated, and ends, with its trail whole.
func TestCompatRows(t *testing.T) {
	if *writeFixtures {
		writeFixture(t, "rows.json", makeRows(t))
	}
	for _, path := range fixtures(t, "rows.json") {
		t.Run(path, func(t *testing.T) {
			var rows []fixtureRow
			if readFixture(t, path, &rows) {
				for i := range rows {
					checkEncoding(t, &rows[i].Record)
				}
			}
			synctest.Test(t, func(t *testing.T) { finishRows(t, rows) })
		})
	}
}

// TestCompatStates: the same for the machines' states that packages saga and
// tcc keep, as rows.
func TestCompatStates(t *testing.T) {
	for kind, root := range map[string]string{KindSaga: "../../../saga/testdata/states", KindTCC: "../../../tcc/testdata/states"} {
		versions, err := filepath.Glob(root + "/*")
		if err != nil || len(versions) < 2 {
			t.Fatalf("%s: %v, %v", root, versions, err)
		}
		for _, version := range versions {
			t.Run(kind+" "+filepath.Base(version), func(t *testing.T) {
				rows := stateRows(t, kind, version)
				synctest.Test(t, func(t *testing.T) { finishRows(t, rows) })
			})
		}
	}
}

// stateRows makes rows of a folder of states.
func stateRows(t *testing.T, kind, dir string) (rows []fixtureRow) {
	t.Helper()
	paths, err := filepath.Glob(dir + "/*.state.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s has no states (%v)", dir, err)
	}
	for _, path := range paths {
		seed := path[:len(path)-len(".state.json")]
		definition := seed + ".definition.json"
		if kind == KindTCC {
			definition = dir + "/definition.json"
		}
		def, err := os.ReadFile(definition)
		if err != nil {
			t.Fatal(err)
		}
		state, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		rec := store.Record{GID: filepath.Base(seed), Kind: kind, Name: "fixture", Version: 1, Definition: bytes.TrimSpace(def),
			Body: bytes.TrimSpace(state), CreatedAt: now, UpdatedAt: now, NextAt: now, Deadline: now.Add(time.Minute)}
		m, _, err := decode(&rec)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if rec.State = uint8(m.phase()); m.phase().Finished() {
			rec.NextAt, rec.FinishedAt = time.Time{}, now
		}
		rows = append(rows, fixtureRow{Record: rec})
	}
	return rows
}

// checkEncoding: what is read from a row of the present version is written as it was.
func checkEncoding(t *testing.T, rec *store.Record) {
	t.Helper()
	m, data, err := decode(rec)
	if err != nil {
		t.Fatalf("%q: %v", rec.GID, err)
	}
	var o own
	if len(data) > 0 {
		if err := json.Unmarshal(data, &o); err != nil {
			t.Fatalf("%q: %v", rec.GID, err)
		}
		if data, err = json.Marshal(o); err != nil {
			t.Fatal(err)
		}
	}
	state, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if again := wire.JoinBody(state, data); !bytes.Equal(again, rec.Body) {
		t.Errorf("%q is stored in another way now: raise compatVersion and write new fixtures\n%s\n%s", rec.GID, rec.Body, again)
	}
}

// finishRows puts rows into a store and has an engine finish them.
func finishRows(t *testing.T, rows []fixtureRow) {
	st := newStore()
	leases, err := st.Acquire(t.Context(), "fixture", time.Hour, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	r := launch(t, st, nil, ok)
	for i := range rows {
		row := &rows[i]
		row.Record.Shard = r.shardOf(row.Record.GID) // also of what a store has never seen
		held := leases[row.Record.Shard : row.Record.Shard+1]
		b := store.Batch{Leases: held, Writes: []store.Write{{Record: firstVersion(row.Record)}}}
		if err := st.Commit(t.Context(), b); err != nil {
			t.Fatalf("%q: %v", row.Record.GID, err)
		}
		b.Writes[0] = store.Write{Record: row.Record, Events: row.Events}
		if err := st.Commit(t.Context(), b); err != nil {
			t.Fatalf("%q: %v", row.Record.GID, err)
		}
	}
	if err := st.Release(t.Context(), "fixture"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	for i := range rows {
		r.finishRow(t, &rows[i].Record)
		checkTrail(t, st, rows[i].Record.GID)
	}
}

// firstVersion is what the row of a record was when it was new: what comes with
// the first write only is in it.
func firstVersion(rec store.Record) store.Record {
	rec.Version, rec.EventSeq, rec.EventHash = 1, 0, nil
	return rec
}

// finishRow asks for everything again that was asked, and waits for the end.
func (r *running) finishRow(t *testing.T, rec *store.Record) {
	t.Helper()
	if err := r.startAgain(t, rec); err != nil {
		t.Errorf("%q: a repeated start: %v", rec.GID, err)
	}
	if rec.Kind != KindBulk && rec.Paused {
		again := pauseOf(rec.GID)
		if _, err := r.Act(t.Context(), again); err != nil {
			t.Errorf("%q: a repeated pause: %v", rec.GID, err)
		}
		again.Reason = "another"
		if _, err := r.Act(t.Context(), again); !errors.Is(err, amendsv1.ErrRequestConflict) {
			t.Errorf("%q: another request of the same id: %v, want ErrRequestConflict", rec.GID, err)
		}
		r.mustAct(Command{Verb: resume, GID: rec.GID})
	}
	state := r.wait(rec.GID)
	if state == txn.Parked {
		r.mustAct(Command{Verb: retry, GID: rec.GID})
		state = r.wait(rec.GID)
	}
	if was := txn.State(rec.State); was.Finished() && state != was {
		t.Errorf("%q was %s and is %s", rec.GID, was, state)
	}
	if !state.Finished() {
		t.Errorf("%q is %s for ever", rec.GID, state)
	}
}

// startAgain repeats the start of a record that has its digest.
func (r *running) startAgain(t *testing.T, rec *store.Record) error {
	var created bool
	var err error
	switch {
	case len(rec.Digest) == 0:
		return nil
	case rec.Kind == KindSaga:
		var d *saga.Definition
		if d, err = saga.DecodeDefinition(rec.Definition); err == nil {
			_, created, err = r.StartSaga(t.Context(), rec.GID, d, rec.Labels)
		}
	case rec.Kind == KindTCC:
		var d *tcc.Definition
		if d, err = tcc.DecodeDefinition(rec.Definition); err == nil {
			_, created, err = r.BeginTCC(t.Context(), rec.GID, d, rec.Labels)
		}
	case rec.Kind == KindBulk:
		b := Bulk{ID: rec.GID}
		if err = json.Unmarshal(rec.Definition, &b); err == nil {
			_, created, err = r.StartBulk(t.Context(), b)
		}
	}
	if created {
		err = fmt.Errorf("started another one")
	}
	return err
}

func pauseOf(gid string) Command {
	return Command{Verb: pauseIt, GID: gid, Reason: "because", Actor: "alice", RequestID: "r1"}
}
