package wire

import (
	"encoding/json"
	"fmt"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/types/known/structpb"
)

// Event is an audit event on the wire, with its gid as callers know it. Its data goes along byte for byte, and
// once more as detail. Data that is no JSON object, which only an edited trail
// has, is still shown: detail then holds "data_error", so that one bad event
// hides no other.
func Event(ev store.Event) *amendsv1.Event {
	_, gid := Split(ev.GID)
	return &amendsv1.Event{
		Gid:      amendsv1.ValidText(gid),
		Seq:      ev.Seq,
		Time:     Timestamp(ev.At),
		Type:     amendsv1.ValidText(ev.Type),
		Detail:   detail(ev.Data),
		Hash:     ev.Hash,
		PrevHash: ev.Prev,
		Data:     ev.Data,
	}
}

func detail(data []byte) *structpb.Struct {
	if len(data) == 0 {
		return nil
	}
	var fields map[string]any
	err := json.Unmarshal(data, &fields) // replaces what is no UTF-8
	if err == nil {
		var d *structpb.Struct
		if d, err = structpb.NewStruct(fields); err == nil {
			return d
		}
	}
	text := amendsv1.ValidText(fmt.Sprintf("not a JSON object: %v", err))
	return &structpb.Struct{Fields: map[string]*structpb.Value{"data_error": structpb.NewStringValue(text)}}
}
