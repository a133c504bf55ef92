package outbox

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

var errHeaders = errors.New("outbox: headers of a stored row are damaged")

// encodeHeaders writes names and values, each behind its length as a uvarint,
// sorted by name: values may be any bytes, which JSON would not keep.
func encodeHeaders(headers map[string]string) []byte {
	out := []byte{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, s := range []string{name, headers[name]} {
			out = binary.AppendUvarint(out, uint64(len(s)))
			out = append(out, s...)
		}
	}
	return out
}

func decodeHeaders(data []byte) (map[string]string, error) {
	if len(data) == 0 {
		return nil, nil
	}
	headers := map[string]string{}
	for len(data) > 0 {
		var pair [2]string
		for i := range pair {
			n, used := binary.Uvarint(data)
			if used <= 0 || n > uint64(len(data)-used) {
				return nil, errHeaders
			}
			pair[i] = string(data[used : used+int(n)])
			data = data[used+int(n):]
		}
		headers[pair[0]] = pair[1]
	}
	return headers, nil
}
