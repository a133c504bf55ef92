package registry_test

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
	"github.com/amends-dev/amends/outbox/schema/avro"
	"github.com/amends-dev/amends/outbox/schema/protobuf"
	"github.com/amends-dev/amends/outbox/schema/registry"
)

// FuzzDeserialize: no body does harm.
func FuzzDeserialize(f *testing.F) {
	reg := srfake.New()
	f.Cleanup(reg.Close)
	client, err := sr.NewClient(sr.URLs(reg.URL()))
	if err != nil {
		f.Fatal(err)
	}
	r, err := registry.New(client, &registry.Config{Register: true})
	if err != nil {
		f.Fatal(err)
	}
	a, err := avro.New[order](avroOrder, r)
	if err != nil {
		f.Fatal(err)
	}
	p, err := protobuf.New(&descriptorpb.DescriptorProto_ReservedRange{}, r)
	if err != nil {
		f.Fatal(err)
	}
	for topic, d := range map[string]schema.Definition{"a": a.Definition(), "p": p.Definition()} {
		body, err := r.Mark(f.Context(), topic, d, []int{2, 1}[:map[string]int{"p": 2}[topic]], []byte("\x02a\x0a"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, err := range []error{second(a.Deserialize(t.Context(), outbox.Message{Body: body})), second(p.Deserialize(t.Context(), outbox.Message{Body: body}))} {
			if err != nil && !errors.Is(err, schema.ErrBody) && !errors.Is(err, schema.ErrUnknownID) {
				t.Error(err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }
