package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

const (
	tokenVersion = 1
	maxToken     = 2048 // bytes; the longest of ours is well below
)

// pageToken is a place in one list. Clients see it as base64url and are told
// nothing about what is inside.
type pageToken struct {
	Version int       `json:"v"`
	List    string    `json:"l"`           // digest of which list it belongs to
	Time    time.Time `json:"t,omitzero"`  // of a store.Cursor
	GID     string    `json:"g,omitempty"` // of a store.Cursor, as the caller knows it
	Seq     int64     `json:"s,omitempty"` // of an event
}

// listID tells lists apart, also those of namespaces: "transactions" by filter,
// "events" by gid, "bulks".
func listID(kind, namespace, of string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + namespace + "\x00" + of))
	return hex.EncodeToString(sum[:8])
}

// encode makes the token of a place in the list named by list.
func (p pageToken) encode(list string) (string, error) {
	p.Version, p.List = tokenVersion, list
	data, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(data), nil
}

// decodeToken reports anything that encode did not make for the same list as
// ErrPageToken.
func decodeToken(token, list string) (pageToken, error) {
	var p pageToken
	if len(token) > maxToken {
		return p, amendsv1.ErrPageToken.With("page_token has %d bytes, ours are shorter", len(token))
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return p, corruptToken()
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, corruptToken()
	}
	if _, err := dec.Token(); err != io.EOF {
		return p, corruptToken()
	}
	switch {
	case p.Version != tokenVersion:
		return p, amendsv1.ErrPageToken.With("page_token is of another version of the coordinator: begin at the first page")
	case p.List != list:
		return p, amendsv1.ErrPageToken.
			With("page_token belongs to another list: use it with the filter, gid and namespace it came with")
	case p.Seq < 0, p.GID != "" && txn.CheckName("gid", p.GID) != nil, (p.GID == "") != p.Time.IsZero():
		return p, corruptToken()
	}
	return p, nil
}

func corruptToken() error {
	return amendsv1.ErrPageToken.With("page_token is not one of ours: pass next_page_token on as it came")
}

// cursor is where the next page begins, nil for the first. key makes the key of
// the gid that the token has.
func cursor(token, list string, key func(gid string) string) (*store.Cursor, error) {
	if token == "" {
		return nil, nil
	}
	p, err := decodeToken(token, list)
	if err != nil {
		return nil, err
	}
	if p.GID == "" || p.Seq != 0 {
		return nil, corruptToken()
	}
	return &store.Cursor{CreatedAt: p.Time.UTC(), GID: key(p.GID)}, nil
}

// lastSeq is the number of the event before the next page, 0 for the first.
func lastSeq(token, list string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	p, err := decodeToken(token, list)
	if err != nil {
		return 0, err
	}
	if p.Seq == 0 {
		return 0, corruptToken()
	}
	return p.Seq, nil
}
