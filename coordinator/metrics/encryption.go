package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator/store/sealedstore"
)

// EncryptionSource is what NewEncryption shows; *sealedstore.Store is one.
type EncryptionSource interface {
	Status() sealedstore.Status
}

var _ EncryptionSource = (*sealedstore.Store)(nil)

// encryption shows how far a store is sealed with its first key.
type encryption struct {
	src EncryptionSource

	looked, unreadable, needed family
}

// plainKey is the label of what is not sealed. No key has a space in its id.
const plainKey = "not encrypted"

// NewEncryption returns a collector of how far a store is sealed with its first
// key, as of the last look at all rows. Its labels are the ids of keys.
func NewEncryption(src EncryptionSource) prometheus.Collector {
	return &encryption{
		src:        src,
		looked:     gauge("amends_encryption_look_timestamp_seconds", "When the last look at all rows ended; 0: there was none yet."),
		needed:     gauge("amends_encryption_key_rows", "Rows that need a key which is not the first.", "key"),
		unreadable: gauge("amends_encryption_unreadable_rows", "Those of them whose key is missing, or that are damaged."),
	}
}

// Describe implements prometheus.Collector.
func (e *encryption) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range []family{e.looked, e.needed, e.unreadable} {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (e *encryption) Collect(ch chan<- prometheus.Metric) {
	s := e.src.Status()
	at := 0.0
	if !s.Done.IsZero() {
		at = float64(s.Done.UnixMilli()) / 1000
	}
	emit(ch, e.looked, at)
	emit(ch, e.unreadable, s.Unreadable)
	for key, n := range s.Needed {
		if key == "" {
			key = plainKey
		}
		emit(ch, e.needed, n, key)
	}
}
