// Package load is the clients: they start transactions and append to lists,
// operators act on what goes on, and a journal keeps what they were told.
package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync"
)

// Line is one thing that a client was told, or did on purpose.
type Line struct {
	What string `json:"what"` // one of the words below
	ID   string `json:"id"`   // a gid, a message's id, of a verb the request's
	Name string `json:"name,omitempty"`
	GID  string `json:"gid,omitempty"`  // of a verb
	Told string `json:"told,omitempty"` // of an end: how
}

// What a Line can be.
const (
	Started  = "started"  // acknowledged: a transaction
	Ended    = "ended"    // somebody who waited was told how
	Appended = "appended" // committed: an entry of a list
	Intended = "intended" // committed: a start in an outbox
	Ghost    = "ghost"    // rolled back on purpose: an entry or a start
	Acted    = "acted"    // acknowledged: an operator's verb
)

// Journal is what clients were told. It is in a file, too, for people.
type Journal struct {
	mu    sync.Mutex
	lines []Line
	file  *os.File
	out   *bufio.Writer
	err   error // of the file, the first
}

// NewJournal makes a journal in a new file.
func NewJournal(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &Journal{file: file, out: bufio.NewWriter(file)}, nil
}

// Add notes a line.
func (j *Journal) Add(l Line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, l)
	text, err := json.Marshal(l)
	if err == nil {
		_, err = j.out.Write(append(text, '\n'))
	}
	if j.err == nil {
		j.err = err
	}
}

// Lines returns what was noted so far.
func (j *Journal) Lines() []Line {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clip(j.lines)
}

// Close writes the rest to the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.err, j.out.Flush(), j.file.Close())
}
