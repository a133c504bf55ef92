package sealedstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Errors of cells that cannot be read or written; test with errors.Is.
var (
	// ErrMissingKey says that a cell was sealed with a key that the file of keys
	// no longer has (the error names it), or that there is no key to seal with.
	ErrMissingKey = errors.New("sealedstore: missing key")
	// ErrDamaged says that a cell is not what was written in its place: it was
	// changed, moved here from elsewhere, or sealed with another key of the same id.
	ErrDamaged = errors.New("sealedstore: cell does not belong here or was changed")
	// ErrPlain says that a cell is not encrypted, and sealed_only refuses that.
	ErrPlain = errors.New("sealedstore: cell is not encrypted")
)

// magic begins every sealed cell. What an engine writes is JSON, hashes or
// words, and begins otherwise.
const magic = "\xffAMS1"

// purpose tells the keys of cells from whatever else may be derived one day.
const purpose = "amends sealedstore 1 "

// vault seals and opens the cells of one transaction.
type vault struct {
	keys *Keys
	gid  string
	made map[string]cipher.AEAD // by the key's id
}

func (v *vault) aead(k key) (cipher.AEAD, error) {
	if a := v.made[k.id]; a != nil {
		return a, nil
	}
	derived, err := hkdf.Expand(sha256.New, k.secret, purpose+v.gid, keySize)
	if err != nil {
		return nil, fmt.Errorf("sealedstore: derive a key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("sealedstore: %w", err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealedstore: %w", err)
	}
	if v.made == nil {
		v.made = map[string]cipher.AEAD{}
	}
	v.made[k.id] = a
	return a, nil
}

// seal makes a cell of what stands in a field, of version or number n. What is
// empty stays empty.
func (v *vault) seal(field string, n int64, plain []byte) ([]byte, error) {
	if len(plain) == 0 {
		return nil, nil
	}
	k, err := v.keys.first()
	if err != nil {
		return nil, err
	}
	a, err := v.aead(k)
	if err != nil {
		return nil, err
	}
	cell := make([]byte, 0, len(magic)+1+len(k.id)+len(plain)+a.Overhead())
	cell = append(append(cell, magic...), byte(len(k.id)))
	cell = append(cell, k.id...)
	return a.Seal(cell, nil, plain, place(field, n)), nil //nolint:gosec // the AEAD makes its own random nonce
}

// open is the inverse of seal. What was never sealed comes back as it is,
// unless only sealed cells are accepted.
func (v *vault) open(field string, n int64, cell []byte) ([]byte, error) {
	if len(cell) == 0 {
		return nil, nil
	}
	id, box, sealed := split(cell)
	switch {
	case !sealed && v.keys != nil && v.keys.sealedOnly:
		return nil, fmt.Errorf("%w: transaction %q, %s %d", ErrPlain, v.gid, field, n)
	case !sealed:
		return cell, nil
	case box == nil:
		return nil, fmt.Errorf("%w: transaction %q, %s %d: it is cut short", ErrDamaged, v.gid, field, n)
	}
	k, err := v.keys.find(id)
	if err != nil {
		return nil, fmt.Errorf("transaction %q, %s %d: %w", v.gid, field, n, err)
	}
	a, err := v.aead(k)
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(nil, nil, box, place(field, n))
	if err != nil { // says only that it failed
		return nil, fmt.Errorf("%w: transaction %q, %s %d, key %q", ErrDamaged, v.gid, field, n, id)
	}
	return plain, nil
}

// place is a cell's associated data: where it stands within its transaction.
func place(field string, n int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(field), uint64(n)) //nolint:gosec // any bits do
}

// split cuts a cell into the id of its key and what that key opens; box is nil
// where a sealed cell is cut short.
func split(cell []byte) (id string, box []byte, sealed bool) {
	text, sealed := strings.CutPrefix(string(cell[:min(len(cell), len(magic)+1+maxID)]), magic)
	if !sealed {
		return "", nil, false
	}
	if text == "" {
		return "", nil, true
	}
	end := 1 + int(text[0])
	if end > len(text) || !keyID.MatchString(text[1:end]) {
		return "", nil, true
	}
	return text[1:end], cell[len(magic)+end:], true
}
