package idempotency

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// ErrTooLong is what a handler's Write returns once its answer is longer than
// Config.MaxResponse.
var ErrTooLong = errors.New("idempotency: the answer is longer than Config.MaxResponse")

// recorder is the ResponseWriter of a handler: it keeps the answer, which nobody
// sees before it is recorded.
type recorder struct {
	header http.Header
	limit  int

	status int         // 0 until the handler has said one
	sent   http.Header // as it was then
	body   bytes.Buffer
	broken error // why this cannot be answered
}

func newRecorder(limit int) *recorder { return &recorder{header: http.Header{}, limit: limit} }

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter. Informational answers are dropped.
func (r *recorder) WriteHeader(status int) {
	switch {
	case r.status != 0 || status >= 100 && status < 200 && status != http.StatusSwitchingProtocols:
		return
	case status < 200 || status > 999:
		r.broken = fmt.Errorf("idempotency: the handler answered with status %d, which cannot be recorded", status)
		status = http.StatusInternalServerError
	}
	r.status, r.sent = status, r.header.Clone()
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK) // unless there is one
	if r.status == http.StatusNoContent || r.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	if r.body.Len()+len(p) > r.limit {
		r.broken = fmt.Errorf("%w: %d bytes", ErrTooLong, r.limit)
		return 0, r.broken
	}
	return r.body.Write(p)
}

// FlushError refuses to stream: nothing may be seen before it is recorded. An
// answer that somebody tried to flush is sent whole.
func (r *recorder) FlushError() error {
	return fmt.Errorf("idempotency: an answer under an Idempotency-Key is recorded as a whole and cannot be streamed: %w",
		http.ErrNotSupported)
}

// Hijack refuses to hand the connection over.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, fmt.Errorf("idempotency: the connection of a request under an Idempotency-Key cannot be taken over: %w",
		http.ErrNotSupported)
}

// answer is what the handler said.
func (r *recorder) answer() answer {
	r.WriteHeader(http.StatusOK) // unless there is one
	r.sent.Del("Content-Length") // the server counts
	return answer{status: r.status, header: r.sent, body: r.body.Bytes()}
}

// send writes an answer to the client, over the headers of those who wrapped us.
func (a answer) send(w http.ResponseWriter) error {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, err := w.Write(a.body)
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		return nil
	}
	return err
}
