package sealedstore_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/sealedstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
)

func wantErr(t testing.TB, err, sentinel error, texts ...string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Fatalf("error %v, want %v", err, sentinel)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %s", err, text)
		}
	}
}

// forger is a store whose rows somebody changed.
type forger struct {
	store.Store
	record func(r *store.Record)
	events func(all []store.Event)
}

func (f *forger) Load(ctx context.Context, gid string) (store.Record, error) {
	r, err := f.Store.Load(ctx, gid)
	f.record(&r)
	return r, err
}

func (f *forger) Due(ctx context.Context, q store.DueQuery) ([]store.Record, error) {
	all, err := f.Store.Due(ctx, q)
	for i := range all {
		f.record(&all[i])
	}
	return all, err
}

func (f *forger) List(ctx context.Context, q store.Query, after *store.Cursor, limit int) ([]store.Record, error) {
	all, err := f.Store.List(ctx, q, after, limit)
	for i := range all {
		f.record(&all[i])
	}
	return all, err
}

func (f *forger) Events(ctx context.Context, gid string, after int64, limit int) ([]store.Event, error) {
	all, err := f.Store.Events(ctx, gid, after, limit)
	f.events(all)
	return all, err
}

// forged is a store with transactions g (versions 1 to 3) and h, both sealed,
// and what the database has of them.
func forged(t *testing.T) (f *forger, st store.Store, older, h store.Record) {
	t.Helper()
	inner := memstore.New(&memstore.Config{Shards: storetest.Shards})
	f = &forger{Store: inner, record: func(*store.Record) {}, events: func([]store.Event) {}}
	st = sealedstore.New(f, keys(t, "a"), nil)
	commit(t, st, write("g", 1), write("g", 2))
	older, err := inner.Load(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, st, write("g", 3), write("h", 1))
	if h, err = inner.Load(t.Context(), "h"); err != nil {
		t.Fatal(err)
	}
	return f, st, older, h
}

func TestForgedRecords(t *testing.T) {
	f, st, older, h := forged(t)
	for name, forge := range map[string]func(r *store.Record){
		"body of another transaction":       func(r *store.Record) { r.Body = h.Body },
		"definition of another transaction": func(r *store.Record) { r.Definition = h.Definition },
		"body of an older version":          func(r *store.Record) { r.Body = older.Body },
		"reason of an older version":        func(r *store.Record) { r.Reason = older.Reason },
		"version of an older row":           func(r *store.Record) { r.Version = older.Version },
		"fields swapped":                    func(r *store.Record) { r.Body, r.EventHash = r.EventHash, r.Body },
		"a bit of the body":                 func(r *store.Record) { r.Body[len(r.Body)-1] ^= 1 },
		"a bit of the nonce":                func(r *store.Record) { r.Body[8] ^= 1 },
		"the body cut":                      func(r *store.Record) { r.Body = r.Body[:len(r.Body)-1] },
		"the body cut to its head":          func(r *store.Record) { r.Body = r.Body[:6] },
		"an id that is none":                func(r *store.Record) { r.Body[6] = ' ' },
		"the digest":                        func(r *store.Record) { r.Digest[20] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			f.record = func(r *store.Record) {
				if r.GID == "g" && r.Body != nil { // not of a list
					forge(r)
				}
			}
			_, err := st.Load(t.Context(), "g")
			wantErr(t, err, sealedstore.ErrDamaged, `"g"`)
			due, err := st.Due(t.Context(), store.DueQuery{
				Shards: []int{0, 1, 2, 3, 4, 5, 6, 7}, Until: time.Now().AddDate(9, 0, 0), Limit: 10})
			if err != nil || len(due) != 2 {
				t.Fatalf("one bad row hides the others: %v, %d due", err, len(due))
			}
			for _, r := range due {
				if readable := strings.HasPrefix(string(r.Body), "body-canary"); readable != (r.GID == "h") {
					t.Errorf("%s: body %q", r.GID, r.Body)
				}
			}
		})
	}
}

func TestForgedLists(t *testing.T) {
	f, st, older, _ := forged(t)
	f.record = func(r *store.Record) {
		if r.GID == "g" {
			r.Reason = older.Reason
		}
	}
	all, err := st.List(t.Context(), store.Query{}, nil, 10)
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %+v", err, all)
	}
	for _, r := range all {
		want := "reas-canary 1"
		if r.GID == "g" {
			want = sealedstore.ErrDamaged.Error()
		}
		if !strings.Contains(r.Reason, want) {
			t.Errorf("%s: reason %q, want %q", r.GID, r.Reason, want)
		}
	}
}

func TestForgedEvents(t *testing.T) {
	f, st, _, _ := forged(t)
	for name, forge := range map[string]func(all []store.Event){
		"data of another": func(all []store.Event) { all[0].Data, all[1].Data = all[1].Data, all[0].Data },
		"renumbered":      func(all []store.Event) { all[0].Seq = 7 },
		"prev for hash":   func(all []store.Event) { all[1].Hash = all[1].Prev },
		"a bit":           func(all []store.Event) { all[2].Data[30] ^= 0x80 },
	} {
		t.Run(name, func(t *testing.T) {
			f.events = forge
			_, err := st.Events(t.Context(), "g", 0, 10)
			wantErr(t, err, sealedstore.ErrDamaged, `"g"`)
		})
	}
}

// TestNothingNewPassesBy fails when the store's interface or rows get something
// new: it then has to be decided whether that is sealed.
func TestNothingNewPassesBy(t *testing.T) {
	for of, known := range map[reflect.Type]string{
		reflect.TypeFor[store.Store](): "Acquire Close Commit Count Due Events Join Leases Leave List Load Purge Release " +
			"Renew Secret Shards Transfer",
		reflect.TypeFor[store.Record](): "GID Shard Namespace Kind Name State Paused Stalled WaitsFor Version Definition Body Digest " +
			"Labels Reason CreatedAt UpdatedAt Deadline NextAt FinishedAt EventSeq EventHash",
		reflect.TypeFor[store.Event]():  "GID Seq At Type Data Prev Hash",
		reflect.TypeFor[store.Write]():  "Record Events Messages",
		reflect.TypeFor[store.Batch]():  "Leases Writes",
		reflect.TypeFor[store.Member](): "Name Address Version Draining StartedAt ExpiresAt",
	} {
		var names []string
		if of.Kind() == reflect.Interface {
			for m := range of.Methods() {
				names = append(names, m.Name)
			}
		} else {
			for f := range of.Fields() {
				names = append(names, f.Name)
			}
		}
		if want := strings.Fields(known); !slices.Equal(names, want) {
			t.Errorf("%v has %v, known are %v: is what is new a payload, or somebody's words?", of, names, want)
		}
	}
}
