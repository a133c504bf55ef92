package orders

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadKeepsWhatIsGood(t *testing.T) {
	file, err := os.Open("testdata/mixed.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	good, bad, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(good) != 3 || good[0].ID != "1" || good[1].ID != "last-good.one" || good[2].ID != "no-newline" {
		t.Errorf("good orders are %+v", good)
	}
	var found strings.Builder
	for _, b := range bad {
		fmt.Fprintf(&found, "%d: %s\n", b.Number, strings.ReplaceAll(b.Reason.Error(), "\n", "; "))
	}
	want, err := os.ReadFile("testdata/mixed.golden")
	if err != nil {
		t.Fatal(err)
	}
	if found.String() != string(want) {
		t.Errorf("bad lines are\n%s\nwant\n%s", found.String(), want)
	}
}

func TestReadLongLines(t *testing.T) {
	order := `{"id":"1","customer":"ada","product":"cup","quantity":1}`
	fits := order + strings.Repeat(" ", MaxLine-len(order))
	for name, text := range map[string]string{
		"one byte more":  order + strings.Repeat(" ", MaxLine-len(order)+1) + "\n" + fits + "\n",
		"ten buffers":    strings.Repeat("x", 10*MaxLine) + "\n" + order,
		"no end at all":  order + "\n" + strings.Repeat("x", 3*MaxLine),
		"behind another": order + "\n" + strings.Repeat("y", MaxLine+100) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			good, bad, err := Read(strings.NewReader(text))
			if err != nil || len(good) != 1 || len(bad) != 1 || !errors.Is(bad[0].Reason, errLong) {
				t.Errorf("read %d good, %v bad, %v; want one order and one long line", len(good), bad, err)
			}
		})
	}
}

func TestReadReportsTheReader(t *testing.T) {
	broken := errors.New("disk on fire")
	if _, _, err := Read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("error is %v, want %v", err, broken)
	}
}

func TestReadIsBounded(t *testing.T) {
	line := `{"id":"1","customer":"ada","product":"cup","quantity":1}` + "\n"
	good, _, err := Read(strings.NewReader(strings.Repeat(line, MaxOrders+1)))
	if len(good) != MaxOrders || err == nil || !strings.Contains(err.Error(), "line 100001: more than 100000 orders") {
		t.Errorf("read %d orders, error %v", len(good), err)
	}
}

func TestGenerate(t *testing.T) {
	var a, b, other bytes.Buffer
	for _, g := range []struct {
		w    *bytes.Buffer
		seed uint64
	}{{&a, 1}, {&b, 1}, {&other, 2}} {
		if err := Generate(g.w, 300, g.seed); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) || bytes.Equal(a.Bytes(), other.Bytes()) {
		t.Error("equal seeds must give equal orders, and other seeds others")
	}
	good, bad, err := Read(&a)
	if err != nil || len(bad) > 0 {
		t.Fatalf("bad lines %v, error %v", bad, err)
	}
	ids, has := map[string]Order{}, map[string]int{}
	for _, o := range good {
		if first, again := ids[o.ID]; again {
			has["again"]++
			if first != o {
				t.Errorf("order %s comes again as another order", o.ID)
			}
		}
		ids[o.ID] = o
		has[o.Card]++
		has[o.Fault]++
		has[o.Product]++
		has[o.Gift]++
	}
	if len(ids) != 300 {
		t.Errorf("%d different orders, want 300", len(ids))
	}
	for _, want := range []string{"again", Declined, FaultSlow, FaultCrash, FaultCrashBeforeReply, "samovar", "unicorn", "mug", "medal"} {
		if has[want] == 0 {
			t.Errorf("no order has %q", want)
		}
	}
}
