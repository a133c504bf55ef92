package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// auditFormat is the version of the lines that `audit export` writes; the format
// is described in docs/audit.md.
const auditFormat = 1

// auditTime is how a line has its time: UTC, to the microsecond that is hashed.
const auditTime = "2006-01-02T15:04:05.000000Z"

// maxLine bounds one line of an export, in bytes.
const maxLine = 64 << 20

// auditLine is one event in an export. All that its hash covers is in it, and
// the head of its trail besides.
type auditLine struct {
	V          int     `json:"v"`
	Namespace  string  `json:"namespace"`
	GID        string  `json:"gid"`
	Seq        int64   `json:"seq"`
	Time       string  `json:"time"`
	Type       string  `json:"type"`
	Data       *string `json:"data,omitempty"`
	DataBase64 []byte  `json:"data_base64,omitempty"` // instead of data that is no UTF-8
	PrevHash   string  `json:"prev_hash"`
	Hash       string  `json:"hash"`
	HeadSeq    int64   `json:"head_seq"`
	HeadHash   string  `json:"head_hash"`
}

// write writes the trail, one line an event.
func (t *trail) write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, e := range t.entries {
		line := auditLine{
			V: auditFormat, Namespace: t.namespace, GID: e.gid, Seq: e.seq, Time: e.at.UTC().Format(auditTime), Type: e.kind,
			PrevHash: hex.EncodeToString(e.prev), Hash: hex.EncodeToString(e.hash),
			HeadSeq: t.headSeq, HeadHash: hex.EncodeToString(t.headHash),
		}
		if text := string(e.data); utf8.Valid(e.data) {
			line.Data = &text
		} else {
			line.DataBase64 = e.data
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// readTrails calls each with the trails of an export, in the order of the file.
// A line that is no event is an error that names its number.
func readTrails(r io.Reader, each func(*trail) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var t *trail
	n := 0
	for lines.Scan() {
		n++
		line, e, err := parseLine(lines.Bytes())
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if t != nil && !line.continues(t) {
			if err := each(t); err != nil {
				return err
			}
			t = nil
		}
		if t == nil {
			head, err := hex.DecodeString(line.HeadHash)
			if err != nil {
				return fmt.Errorf("line %d: head_hash: %w", n, err)
			}
			t = &trail{namespace: line.Namespace, gid: line.GID, headSeq: line.HeadSeq, headHash: head}
		}
		t.entries = append(t.entries, e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	if t == nil {
		return nil
	}
	return each(t)
}

// continues reports whether the line is of the same trail, with the same head.
func (l *auditLine) continues(t *trail) bool {
	return l.Namespace == t.namespace && l.GID == t.gid && l.HeadSeq == t.headSeq && l.HeadHash == hex.EncodeToString(t.headHash)
}

func parseLine(text []byte) (l *auditLine, e entry, err error) {
	l = &auditLine{}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(l); err != nil {
		return nil, e, fmt.Errorf("no audit event: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, e, errors.New("there is more after the event")
	}
	if l.V != auditFormat {
		return nil, e, fmt.Errorf("v is %d, and this program reads %d", l.V, auditFormat)
	}
	at, timeErr := time.Parse(time.RFC3339Nano, l.Time)
	hash, hashErr := hex.DecodeString(l.Hash)
	prev, prevErr := hex.DecodeString(l.PrevHash)
	e = entry{gid: l.GID, seq: l.Seq, at: at, kind: l.Type, data: l.DataBase64, prev: prev, hash: hash}
	if l.Data != nil {
		e.data = []byte(*l.Data)
	}
	return l, e, errors.Join(timeErr, hashErr, prevErr)
}
