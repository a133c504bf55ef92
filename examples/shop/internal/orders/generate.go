package orders

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
)

// Generate writes n orders, and one of 25 of them a second time somewhere
// behind, as impatient customers do. Equal arguments give equal bytes.
func Generate(w io.Writer, n int, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same file each time is the point
	out := json.NewEncoder(w)
	var again []Order
	for i := range n {
		o := random(rnd, i)
		if err := out.Encode(o); err != nil {
			return err
		}
		if i%25 == 7 {
			again = append(again, o)
		}
		if len(again) > 0 && (rnd.IntN(20) == 0 || i == n-1) {
			for _, o := range again {
				if err := out.Encode(o); err != nil {
					return err
				}
			}
			again = nil
		}
	}
	return nil
}

// random is the i-th order. About one of ten has a card that is declined, and
// one of eight asks for something that is not there or never was.
func random(rnd *rand.Rand, i int) Order {
	o := Order{
		ID:       fmt.Sprintf("%05d", i+1),
		Customer: fmt.Sprintf("customer-%02d", rnd.IntN(80)+1),
		Product:  []string{"teapot", "kettle", "cup", "spoon", "lantern"}[rnd.IntN(5)],
		Quantity: 1 + rnd.IntN(3),
	}
	switch rnd.IntN(40) {
	case 0, 1, 2, 3:
		o.Card = Declined
	case 4, 5:
		o.Product = "samovar" // the shop has none
	case 6:
		o.Product = "unicorn" // nobody has any
	}
	switch rnd.IntN(5) {
	case 0:
		o.Gift = "mug" // plenty
	case 1:
		o.Gift = "medal" // few
	}
	if i%20 == 10 {
		faults := []string{FaultCrashBeforeReply, FaultCrash, FaultSlow, FaultSlow, FaultSlow, "", "", "", "", ""}
		o.Fault, o.Card = faults[i/20%len(faults)], ""
		o.Product = "cup" // so that it comes as far as the charge
	}
	return o
}
