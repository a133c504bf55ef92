package notify

import (
	"encoding/json"
	"time"
)

// The CloudEvents 1.0 that events are sent as.
const (
	specVersion = "1.0"
	batchType   = "application/cloudevents-batch+json"
	dataType    = "application/json"
)

// cloudEvent is an event in CloudEvents' JSON format.
type cloudEvent struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        Type   `json:"type"`
	Subject     string `json:"subject"`
	Time        string `json:"time"`
	ContentType string `json:"datacontenttype"`
	Data        Event  `json:"data"`
}

// encodeBatch writes events in CloudEvents' JSON batch format.
func encodeBatch(events []Event) ([]byte, error) {
	batch := make([]cloudEvent, len(events))
	for i, e := range events {
		batch[i] = cloudEvent{specVersion, e.ID, e.Source, e.Type, e.GID, e.Time.Format(time.RFC3339Nano), dataType, e}
	}
	return json.Marshal(batch)
}
