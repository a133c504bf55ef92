package meter_test

import (
	"reflect"
	"testing"

	"github.com/amends-dev/amends/coordinator/internal/meter"
)

func TestTallyCountsOnlyItsKeys(t *testing.T) {
	c := meter.NewTally("a", "b")
	c.Add("a")
	c.Add("a")
	c.Add("of a user's making")
	if want := map[string]uint64{"a": 2, "b": 0}; !reflect.DeepEqual(c.All(), want) {
		t.Errorf("counted %v, want %v", c.All(), want)
	}
}

func TestHistogramIsCumulative(t *testing.T) {
	h := meter.NewHistogram(1, 10)
	for _, v := range []float64{0, 1, 1.5, 10, 11} {
		h.Observe(v)
	}
	want := meter.Snapshot{Bounds: []float64{1, 10}, Counts: []uint64{2, 4}, Count: 5, Sum: 23.5}
	if got := h.Snapshot(); !reflect.DeepEqual(got, want) {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}
