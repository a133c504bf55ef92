package orders

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a file.
const (
	MaxLine   = 64 << 10 // bytes
	MaxOrders = 100_000
)

// BadLine is a line that is no order. It costs nothing but itself.
type BadLine struct {
	Number int // counts from 1
	Reason error
}

// Read reads a file of orders, one per line, as JSON; empty lines are skipped.
// Lines that are no orders are returned beside them. The error is about the
// reading itself, or a file of more than MaxOrders.
func Read(r io.Reader) (good []Order, bad []BadLine, err error) {
	lines := bufio.NewReaderSize(r, MaxLine+len("\r\n"))
	for number := 1; ; number++ {
		line, err := nextLine(lines)
		switch {
		case errors.Is(err, io.EOF):
			return good, bad, nil
		case errors.Is(err, errLong):
			bad = append(bad, BadLine{number, err})
			continue
		case err != nil:
			return good, bad, fmt.Errorf("line %d: %w", number, err)
		}
		if line == "" {
			continue
		}
		o, err := Parse(line)
		if err != nil {
			bad = append(bad, BadLine{number, err})
			continue
		}
		if len(good) == MaxOrders {
			return good, bad, fmt.Errorf("line %d: more than %d orders: split the file", number, MaxOrders)
		}
		good = append(good, o)
	}
}

var errLong = fmt.Errorf("longer than %d bytes", MaxLine)

// nextLine returns a line without the white space around it. Of one that is too
// long it keeps nothing, whatever its length.
func nextLine(r *bufio.Reader) (string, error) {
	line, more, err := r.ReadLine()
	if err != nil {
		return "", err
	}
	if !more && len(line) <= MaxLine {
		return strings.TrimSpace(string(line)), nil
	}
	for more {
		if _, more, err = r.ReadLine(); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
	}
	return "", errLong
}
