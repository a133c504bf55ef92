package process

import (
	"bytes"
	"io"
	"regexp"
)

const maxLine = 4 << 10

// watcher passes output on to the log and looks for the line that says that the
// program works.
type watcher struct {
	log   io.Writer
	ready *regexp.Regexp
	found func()
	line  []byte // the last one, as far as it was written
}

// Write implements io.Writer.
func (w *watcher) Write(text []byte) (int, error) {
	w.line = append(w.line, text...)
	for {
		line, rest, whole := bytes.Cut(w.line, []byte("\n"))
		if !whole {
			break
		}
		if w.ready.Match(line) {
			w.found()
		}
		w.line = rest
	}
	if len(w.line) > maxLine {
		w.line = w.line[:0]
	}
	return w.log.Write(text)
}
