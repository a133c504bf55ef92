package sealedstore

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzOpen: whatever stands in a cell, opening it is an error or what was
// there, and only what was sealed for this place opens as sealed.
func FuzzOpen(f *testing.F) {
	k := &Keys{list: []key{{"a", bytes.Repeat([]byte("12"), 16)}, {"bb", bytes.Repeat([]byte("34"), 16)}}}
	v := &vault{keys: k, gid: "g"}
	good, err := v.seal("body", 1, []byte("content"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		nil, []byte("plain"), good, good[:len(good)-1], append([]byte("x"), good...), []byte(magic), []byte(magic + "\x00"), []byte(magic + "\x01"),
		[]byte(magic + "\x01a"), []byte(magic + "\x01z0123456789ab"), []byte(magic + "\xff" + string(make([]byte, 300))), []byte(magic + "\x02bb0123456789ab"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cell []byte) {
		plain, err := v.open("body", 1, cell)
		switch {
		case err != nil:
			if plain != nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrMissingKey) {
				t.Fatalf("%q, %v", plain, err)
			}
		case bytes.HasPrefix(cell, []byte(magic)):
			if string(plain) != "content" { // the only thing that was ever sealed here
				t.Fatalf("%q opens as %q", cell, plain)
			}
		case !bytes.Equal(plain, cell):
			t.Fatalf("%q comes back as %q", cell, plain)
		}
		again, err := v.seal("body", 2, cell)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := v.open("body", 2, again); err != nil || !bytes.Equal(back, cell) {
			t.Fatalf("%q sealed comes back as %q, %v", cell, back, err)
		}
	})
}

// FuzzParseKeys: no file of keys makes it panic, and none that it accepts is
// unfit to seal with.
func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys": [{"id": "a", "key": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="}], "sealed_only": true}`))
	f.Add([]byte(`{"keys": [{}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKeys(data)
		if err != nil {
			return
		}
		v := &vault{keys: k, gid: "g"}
		cell, err := v.seal("body", 1, data)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := v.open("body", 1, cell); err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%v", err)
		}
	})
}
