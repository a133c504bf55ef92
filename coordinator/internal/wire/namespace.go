package wire

import "strings"

// The marks of keys. Neither can stand in a gid or a namespace.
const (
	separator = "\x00" // between a namespace and what stands in it
	bulkMark  = "\x02" // before a bulk's id, and before the namespace of its record
)

// KindBulk is the store.Record.Kind of a bulk of operators' verbs. It is no
// kind of transaction: it has no number on the wire.
const KindBulk = "bulk"

// Key is the gid by which the store and the engine know a caller's gid: in the
// default namespace the gid itself, in another one that with its namespace.
func Key(namespace, gid string) string {
	if namespace == "" {
		return gid
	}
	return namespace + separator + gid
}

// Split is the inverse of Key.
func Split(key string) (namespace, gid string) {
	if namespace, gid, ok := strings.Cut(key, separator); ok {
		return namespace, gid
	}
	return "", key
}

// BulkKey is the key of a bulk's record, which is no transaction's.
func BulkKey(namespace, id string) string { return Key(namespace, bulkMark+id) }

// SplitBulk is the inverse of BulkKey; false for the key of a transaction.
func SplitBulk(key string) (namespace, id string, ok bool) {
	namespace, id = Split(key)
	id, ok = strings.CutPrefix(id, bulkMark)
	return namespace, id, ok
}

// BulkNamespace is what a bulk's record has for store.Record.Namespace: no list
// and no count of a namespace's transactions meets its bulks, and a list of
// bulks meets nothing else.
func BulkNamespace(namespace string) string { return bulkMark + namespace }

// Plain is a text about a namespace's transactions and bulks, with gids as
// callers know them: what only keys have is taken out, as it is and as %q
// writes it.
func Plain(namespace, text string) string {
	mark := strings.NewReplacer(separator, `\x00`, bulkMark, `\x02`)
	var pairs []string
	for _, prefix := range []string{BulkKey(namespace, ""), Key(namespace, "")} {
		if prefix != "" {
			pairs = append(pairs, prefix, "", mark.Replace(prefix), "")
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
