// Package orders is what customers hand in: one order per line, as JSON.
package orders

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Order is one line of an orders file.
type Order struct {
	ID       string `json:"id"`              // names the order: handed in twice, it is one order
	Customer string `json:"customer"`        // gets an account with some money at the first charge
	Product  string `json:"product"`         // what the shop does not know, it turns away
	Quantity int    `json:"quantity"`        // 1 to MaxQuantity
	Card     string `json:"card,omitempty"`  // "declined": the bank refuses; otherwise empty
	Gift     string `json:"gift,omitempty"`  // a product that comes with the loyalty points; empty: wants neither
	Fault    string `json:"fault,omitempty"` // what goes wrong at the payment service; see the constants
}

// Faults that an order can ask for. The crashes are real: the process is gone,
// once for each order.
const (
	FaultSlow             = "slow"               // the charge takes a tenth of a second
	FaultCrash            = "crash"              // dies before the charge is committed
	FaultCrashBeforeReply = "crash-before-reply" // dies when the charge is committed and nobody knows
)

// Declined is the card that the bank refuses.
const Declined = "declined"

// Limits of an order.
const (
	MaxName     = 64 // bytes of each text
	MaxQuantity = 1000
)

// Validate reports every mistake in o, each naming the field.
func (o Order) Validate() error {
	var errs []error
	name := func(field, value string, required bool) {
		switch {
		case value == "" && required:
			errs = append(errs, fmt.Errorf("%s is missing", field))
		case len(value) > MaxName:
			errs = append(errs, fmt.Errorf("%s has %d bytes, want at most %d", field, len(value), MaxName))
		case strings.ContainsFunc(value, func(r rune) bool { return !strings.ContainsRune(letters, r) }):
			errs = append(errs, fmt.Errorf("%s is %q, want letters, digits, '-', '_' and '.' only", field, value))
		}
	}
	oneOf := func(field, value string, words ...string) {
		if value != "" && !slices.Contains(words, value) {
			errs = append(errs, fmt.Errorf("%s is %.80q, want one of %q", field, value, words))
		}
	}
	name("id", o.ID, true)
	name("customer", o.Customer, true)
	name("product", o.Product, true)
	name("gift", o.Gift, false)
	if o.Quantity < 1 || o.Quantity > MaxQuantity {
		errs = append(errs, fmt.Errorf("quantity is %d, want 1 to %d", o.Quantity, MaxQuantity))
	}
	oneOf("card", o.Card, Declined)
	oneOf("fault", o.Fault, FaultSlow, FaultCrash, FaultCrashBeforeReply)
	return errors.Join(errs...)
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// Parse reads one order, and validates it.
func Parse(line string) (Order, error) {
	var o Order
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, explain(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("more than one JSON object in the line")
	}
	return o, o.Validate()
}

// explain says what encoding/json means in the words of an orders file.
func explain(err error) error {
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("not JSON: the line ends too early")
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return fmt.Errorf("a JSON %s, want an object", wrongType.Value)
	case errors.As(err, &wrongType):
		return fmt.Errorf("%s is a JSON %s, want %s", wrongType.Field, wrongType.Value, wrongType.Type)
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if strings.HasPrefix(text, "unknown field") {
		return fmt.Errorf("%s (known: id, customer, product, quantity, card, gift, fault)", text)
	}
	return fmt.Errorf("not JSON: %s", text)
}
