package outbox

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"
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

// notBeforeHeader is how NotBefore is stored, in microseconds since 1970: among
// the headers, so that a message is the same row with it and without. Publishers
// do not see it.
const notBeforeHeader = "amends-not-before"

// packed are the headers as they are stored.
func (m *Message) packed() []byte {
	if m.NotBefore.IsZero() {
		return encodeHeaders(m.Headers)
	}
	headers := make(map[string]string, len(m.Headers)+1) // the map is the caller's
	maps.Copy(headers, m.Headers)
	headers[notBeforeHeader] = strconv.FormatInt(m.NotBefore.UnixMicro(), 10)
	return encodeHeaders(headers)
}

// unpack reads what packed wrote.
func (m *Message) unpack(data []byte) error {
	headers, err := decodeHeaders(data)
	if text, ok := headers[notBeforeHeader]; ok {
		us, notNumber := strconv.ParseInt(text, 10, 64)
		if notNumber != nil {
			return errHeaders
		}
		m.NotBefore = time.UnixMicro(us)
		delete(headers, notBeforeHeader)
	}
	m.Headers = headers
	return err
}
