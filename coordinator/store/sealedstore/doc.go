// Package sealedstore encrypts what a store keeps of payloads and of people's
// words, so that neither the database's files nor its backups show them.
//
//	keys, err := sealedstore.ReadKeys("keys.json")
//	st := sealedstore.New(inner, keys)
//
// Sealed are Definition, Body, Reason, Digest and EventHash of a record, and
// Data, Prev and Hash of an event: the hashes because they are of plaintext,
// and would confirm a guess at it. Everything else stays as it is, because the
// database searches and orders by it: gids, names, namespaces, labels, services,
// states and times.
//
// # Cells
//
// Each field is a cell of its own, sealed with AES-256-GCM under a random
// nonce:
//
//	0xff "AMS1", length of the key's id (1 byte), the id, nonce (12), ciphertext and tag
//
// The key of a cell is derived from the file's by HKDF-SHA256 for the gid, and
// its associated data are the field's name and the record's version or the
// event's number. So a cell opens nowhere but where it was written: not in
// another transaction, field, version or event. Because no derived key seals
// more than one transaction's cells, random nonces do not run out, however many
// transactions there are.
//
// A repeated Commit seals the same batch into other bytes. Stores tell repeats
// by version and number, never by content, so the first one stays.
package sealedstore
