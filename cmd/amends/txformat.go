package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// asJSON encodes a message with the field names of the .proto files, which are
// those of filters too. protojson varies its spaces on purpose: they are
// removed.
func asJSON(m proto.Message) ([]byte, error) {
	loose, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, loose)
	return out.Bytes(), err
}

// printMessage prints a message as indented JSON.
func printMessage(w io.Writer, m proto.Message) error {
	data, err := asJSON(m)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}

// printLine prints a message as one line of JSON.
func printLine(w io.Writer, m proto.Message) error {
	data, err := asJSON(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// when is a time for people, in UTC and to the millisecond; absent is "".
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format("2006-01-02T15:04:05.000Z07:00")
}

// word makes "saga" of "KIND_SAGA".
func word(s, prefix string) string { return strings.ToLower(strings.TrimPrefix(s, prefix)) }

// cause is why a transaction turned back, in one line.
func cause(c *amendsv1.Cause) string {
	if c == nil {
		return ""
	}
	parts := []string{c.GetCode()}
	if c.GetBranch() != "" {
		parts = append([]string{c.GetBranch()}, parts...)
	}
	if c.GetMessage() != "" {
		parts = append(parts, c.GetMessage())
	}
	return strings.Join(parts, ": ")
}
