package sealedstore

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
)

const (
	keySize = 32      // of a key, in bytes: AES-256
	maxID   = 32      // of its id, as keyID says
	maxFile = 1 << 20 // of a file of keys, in bytes
)

var keyID = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,32}$`)

// Keys are those of one file: the first seals, all of them open. A nil *Keys
// and the zero Keys have none, and seal nothing. Those of OpenKeys change with
// the file, others do not. They may be used by many goroutines.
type Keys struct {
	file       *keyFile // has them; nil: they are these
	list       []key
	sealedOnly bool
}

// current are the keys as they are now, and then stay.
func (k *Keys) current() *Keys {
	if k != nil && k.file != nil {
		return k.file.current()
	}
	return k
}

type key struct {
	id     string
	secret []byte
}

// ReadKeys reads a file of keys; ParseKeys says what is in one.
func ReadKeys(path string) (*Keys, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("sealedstore: keys: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("sealedstore: keys: %w", err)
	}
	k, err := ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// ParseKeys reads JSON:
//
//	{"keys": [{"id": "2026-11", "key": "32 random bytes as base64"}], "sealed_only": false}
//
// The first key seals, all of them open. An id is 1 to 32 letters, digits and
// ". _ -"; it stands in every cell, readable. With sealed_only, what was written
// before encryption was turned on is refused instead of read as it is.
//
// Every mistake is reported at once, by its field; none of them quotes a key.
func ParseKeys(data []byte) (*Keys, error) {
	var file struct {
		Keys []struct {
			ID  string `json:"id"`
			Key string `json:"key"`
		} `json:"keys"`
		SealedOnly bool `json:"sealed_only"`
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("sealedstore: keys: over %d bytes", maxFile)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("sealedstore: keys: %w", shown(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("sealedstore: keys: something follows the JSON object")
	}
	if len(file.Keys) == 0 {
		return nil, errors.New("sealedstore: keys: there is none")
	}
	k := &Keys{sealedOnly: file.SealedOnly}
	var errs []error
	for i, entry := range file.Keys {
		secret, err := decodeKey(entry.Key)
		if err == nil {
			err = k.check(entry.ID, secret)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sealedstore: keys[%d]: %w", i, err))
			continue
		}
		k.list = append(k.list, key{entry.ID, secret})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return k, nil
}

// shown is an error of JSON without what stood in it, which may be a key.
func shown(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("no JSON, at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("field %q is of another type, at byte %d", kind.Field, kind.Offset)
	}
	return errors.New(`want {"keys": [{"id": …, "key": …}], "sealed_only": …} and nothing else`)
}

func decodeKey(text string) ([]byte, error) {
	secret, err := base64.StdEncoding.Strict().DecodeString(text)
	switch {
	case err != nil:
		return nil, errors.New("key is no base64") // the cause would quote a byte of it
	case len(secret) != keySize:
		return nil, fmt.Errorf("key is %d bytes long, want %d", len(secret), keySize)
	case bytes.Count(secret, secret[:1]) == keySize:
		return nil, errors.New("key is one byte repeated: make one with openssl rand -base64 32")
	}
	return secret, nil
}

func (k *Keys) check(id string, secret []byte) error {
	if !keyID.MatchString(id) {
		return errors.New(`id: want 1 to 32 letters, digits, ".", "_" and "-"`)
	}
	for _, other := range k.list {
		if other.id == id {
			return fmt.Errorf("id %q is there twice", id)
		}
		if bytes.Equal(other.secret, secret) {
			return fmt.Errorf("id %q has the key of id %q", id, other.id)
		}
	}
	return nil
}

// String hides the keys from logs.
func (*Keys) String() string { return "encryption keys (hidden)" }

// GoString hides them, too.
func (k *Keys) GoString() string { return k.String() }

func (k *Keys) first() (key, error) {
	if k == nil || len(k.list) == 0 {
		return key{}, fmt.Errorf("%w: there are none to seal with", ErrMissingKey)
	}
	return k.list[0], nil
}

func (k *Keys) find(id string) (key, error) {
	if k != nil {
		for _, have := range k.list {
			if have.id == id {
				return have, nil
			}
		}
	}
	return key{}, &missingKeyError{id}
}

// missingKeyError is the ErrMissingKey that knows which.
type missingKeyError struct{ id string }

func (e *missingKeyError) Error() string {
	return fmt.Sprintf("%v: %q is not in the file of keys: put it back", ErrMissingKey, e.id)
}

// Is makes errors.Is(err, ErrMissingKey) true.
func (e *missingKeyError) Is(target error) bool { return target == ErrMissingKey }
