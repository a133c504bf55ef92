package api

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

var (
	yes, no = true, false
	noon    = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

func after(d time.Duration) time.Time { return noon.Add(d) }

func TestFilters(t *testing.T) {
	const at = `"2026-11-01T12:00:00Z"`
	for filter, want := range map[string]store.Query{
		"":    {},
		" \t": {},
		`state = "ROLLING_BACK" AND name = "transfer"`: {States: []uint8{3}, Name: "transfer"},
		`state=PARKED`:                         {States: []uint8{6}},
		`state != RUNNING`:                     {States: []uint8{2, 3, 4, 5, 6, 7}},
		`state != RUNNING AND state != PARKED`: {States: []uint8{2, 3, 4, 5, 7}},
		`state = RUNNING AND state = RUNNING`:  {States: []uint8{1}},
		`kind = saga`:                          {Kind: "saga"},
		`kind != saga`:                         {Kind: "tcc"},
		`kind = tcc AND kind != saga`:          {Kind: "tcc"},
		`kind != tcc`:                          {Kind: "saga"},
		`name = "AND"`:                         {Name: "AND"},
		`name = "a \"b\" = \\ \u00e9"`:         {Name: `a "b" = \ é`},
		`name = zahlung-é.v2/x:y`:              {Name: "zahlung-é.v2/x:y"},
		`paused = true`:                        {Paused: &yes},
		`paused != "true"`:                     {Paused: &no},
		`paused = false AND paused != true`:    {Paused: &no},
		`stalled = true`:                       {Stalled: &yes},
		`stalled != true AND stalled = false`:  {Stalled: &no},
		`participant = "bank accounts"`:        {WaitsFor: "bank accounts"},
		`participant=stock AND stalled=true AND participant=stock`: {WaitsFor: "stock", Stalled: &yes},
		`unfinished = true`:                                  {Unfinished: true},
		`unfinished != false AND state != PARKED`:            {Unfinished: true, States: []uint8{1, 2, 3}},
		`state = PARKED AND unfinished = true`:               {Unfinished: true, States: []uint8{6}},
		`unfinished = false`:                                 {States: []uint8{4, 5, 7}},
		`create_time >= ` + at:                               {CreatedFrom: noon},
		`create_time > ` + at:                                {CreatedFrom: after(time.Microsecond)},
		`create_time < ` + at:                                {CreatedUntil: noon},
		`create_time <= ` + at:                               {CreatedUntil: after(time.Microsecond)},
		`create_time >= 2026-11-01T12:00:00.0000001Z`:        {CreatedFrom: after(time.Microsecond)},
		`create_time > 2026-11-01T12:00:00.0000001Z`:         {CreatedFrom: after(time.Microsecond)},
		`create_time < 2026-11-01T12:00:00.0000001Z`:         {CreatedUntil: after(time.Microsecond)},
		`create_time <= 2026-11-01T12:00:00.0000001Z`:        {CreatedUntil: after(time.Microsecond)},
		`create_time >= 2026-11-01T14:00:00+02:00`:           {CreatedFrom: noon},
		`create_time >= ` + at + ` AND create_time <= ` + at: {CreatedFrom: noon, CreatedUntil: after(time.Microsecond)},
		`update_time < ` + at:                                {UpdatedUntil: noon},
		`update_time <= ` + at + ` AND update_time < ` + at:  {UpdatedUntil: noon},
		`labels.order_id = "A-17"`:                           {Labels: map[string]string{"order_id": "A-17"}},
		`labels.a = 1 AND labels.b = "" AND labels.a = "1"`:  {Labels: map[string]string{"a": "1", "b": ""}},
		"name\n=\nx": {Name: "x"},
		`create_time>=2026-11-01T12:00:00Z AND state!=COMMITTED`: {CreatedFrom: noon, States: []uint8{1, 2, 3, 5, 6, 7}},
	} {
		if got, err := parseQuery(filter); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %+v, %v\nwant %+v", filter, got, err, want)
		}
	}
}

func TestBadFilters(t *testing.T) {
	const at = `"2026-11-01T12:00:00Z"`
	for filter, want := range map[string]string{
		`colour = red`:                             "the fields are state, kind, name, paused, unfinished, stalled, participant, create_time, update_time, labels.KEY",
		`State = RUNNING`:                          "no such field",
		`labels = x`:                               "no such field",
		`labels. = x`:                              "label's key",
		`labels.A = x`:                             "label's key",
		`"state" = RUNNING`:                        "expected a field",
		`state`:                                    "at the end: expected an operator",
		`state =`:                                  "at the end: expected a value",
		`state = = RUNNING`:                        `at byte 8: expected a value after =, found "="`,
		`state = RUNNING AND`:                      "at the end: expected a field",
		`state = RUNNING name = x`:                 `found "name"`,
		`state = RUNNING OR state = PARKED`:        "joined by AND only",
		`state = RUNNING and name = x`:             "joined by AND only",
		`NOT state = RUNNING`:                      "expected a field",
		`name = AND`:                               "expected a value",
		`(state = RUNNING)`:                        `at byte 0: "(" has no meaning`,
		`name = 'x'`:                               "has no meaning",
		`name ! x`:                                 "has no meaning",
		`name = "x`:                                "does not end",
		`name = "\q"`:                              "bad escape",
		`state = "running"`:                        "the states are RUNNING, COMMITTING, ROLLING_BACK, COMMITTED, ROLLED_BACK, PARKED, ABANDONED",
		`state > RUNNING`:                          "takes = != only",
		`kind = xa`:                                "the kinds are saga and tcc",
		`kind < saga`:                              "takes = != only",
		`name != x`:                                "takes = only",
		`name = ""`:                                "leave the term out",
		`paused = yes`:                             "true and false",
		`paused > true`:                            "takes = != only",
		`unfinished = 1`:                           "true and false",
		`stalled = maybe`:                          "true and false",
		`stalled < true`:                           "takes = != only",
		`participant != x`:                         "takes = only",
		`participant = ""`:                         "the name of a service",
		`stalled = true AND stalled != true`:       "no transaction can match",
		`participant = a AND participant = b`:      "no transaction can match",
		`create_time = ` + at:                      "takes < <= > >= only",
		`create_time < yesterday`:                  `write times like "2026-11-01T00:00:00Z"`,
		`create_time < "1969-12-31T23:59:59Z"`:     "1970",
		`update_time > ` + at:                      "takes < <= only",
		`update_time < soon`:                       "write times like",
		`labels.a != x`:                            "takes = only",
		`state = RUNNING AND state = PARKED`:       "no transaction can match",
		`unfinished = true AND state = COMMITTED`:  "no transaction can match",
		`unfinished = true AND unfinished = false`: "no transaction can match",
		`kind = saga AND kind = tcc`:               "no transaction can match",
		`name = a AND name = b`:                    "no transaction can match",
		`paused = true AND paused = false`:         "no transaction can match",
		`labels.a = 1 AND labels.a = 2`:            "no transaction can match",
		`create_time > ` + at + ` AND create_time < ` + at: "no transaction can match",
		strings.Repeat(" ", maxFilter+1):                   "at most 4096",
	} {
		_, err := parseQuery(filter)
		if !errors.Is(err, amendsv1.ErrFilter) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", filter, err, want)
		}
	}
	var e *amendsv1.Error
	if _, err := parseQuery("colour = red"); !errors.As(err, &e) || e.Metadata["field"] != "colour" {
		t.Errorf("%v does not name the field", err)
	}
}

// Every state has an end or not: unfinishedStates counts those that have none.
func TestUnfinishedStates(t *testing.T) {
	n := 0
	for s := txn.Running; s.Valid(); s++ {
		if !s.Finished() {
			n++
		}
	}
	if n != unfinishedStates {
		t.Errorf("%d states are no end, the constant says %d", n, unfinishedStates)
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		``, `state = "ROLLING_BACK" AND name = "transfer"`, `create_time >= "2026-11-01T00:00:00Z" AND labels.order_id = "A-17"`,
		`unfinished != false AND paused = false AND kind != tcc`, `name = "\xff\u00e9\""`, `update_time<=2026-11-01T00:00:00.123456789+05:30`,
		`state != RUNNING AND state != PARKED`, `a = "`, `! = <`,
		`stalled = true AND participant = accounts AND stalled != false`, "name=\xff", `create_time > 9999-12-31T23:59:59.9999999Z`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		q, err := parseQuery(filter)
		if err != nil {
			if !errors.Is(err, amendsv1.ErrFilter) {
				t.Fatalf("%q: %v is no ErrFilter", filter, err)
			}
			return
		}
		if strings.TrimSpace(filter) != "" && reflect.DeepEqual(q, store.Query{}) {
			t.Errorf("%q has terms and selects all", filter)
		}
		if !q.CreatedFrom.IsZero() && !q.CreatedUntil.IsZero() && !q.CreatedFrom.Before(q.CreatedUntil) {
			t.Errorf("%q: from %v until %v", filter, q.CreatedFrom, q.CreatedUntil)
		}
		twice, err := parseQuery(filter + " AND " + filter)
		if len(filter) < maxFilter/2-5 && strings.TrimSpace(filter) != "" && (err != nil || !reflect.DeepEqual(q, twice)) {
			t.Errorf("%q: once %+v, twice %+v, %v", filter, q, twice, err)
		}
	})
}
