package registry_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/schema"
	"github.com/amends-dev/amends/outbox/schema/avro"
	"github.com/amends-dev/amends/outbox/schema/registry"
)

type Placed struct {
	Order string `avro:"order"`
	Cents int64  `avro:"cents"`
}

const placedSchema = `{"type": "record", "name": "Placed", "fields": [
	{"name": "order", "type": "string"}, {"name": "cents", "type": "long"}]}`

// newPlaced makes the codec, and fails now if the registry refuses the schema.
func newPlaced(ctx context.Context, address string) (schema.Codec[Placed], error) {
	client, err := sr.NewClient(sr.URLs(address))
	if err != nil {
		return nil, err
	}
	reg, err := registry.New(client, &registry.Config{Register: true})
	if err != nil {
		return nil, err
	}
	codec, err := avro.New[Placed](placedSchema, reg)
	if err != nil {
		return nil, err
	}
	return codec, reg.Prepare(ctx, "orders", codec.Definition())
}

func writePlaced(ctx context.Context, db *sql.DB, box *outbox.Outbox, codec schema.Codec[Placed], p Placed) error {
	m, err := schema.Message(ctx, codec, outbox.Message{Topic: "orders", Key: p.Order}, p)
	if err != nil {
		return err
	}
	return box.Tx(ctx, db, func(tx *sql.Tx) error { return box.Write(ctx, tx, m) })
}

func Example() {
	_ = writePlaced // with a database
	fake := srfake.New()
	defer fake.Close()
	codec, err := newPlaced(context.Background(), fake.URL())
	if err != nil {
		log.Fatal(err)
	}
	m, err := schema.Message(context.Background(), codec, outbox.Message{Topic: "orders"}, Placed{Order: "17", Cents: 1250})
	if err != nil {
		log.Fatal(err)
	}
	p, err := codec.Deserialize(context.Background(), m)
	fmt.Printf("% x %v %v\n", m.Body, p, err)
	// Output: 00 00 00 00 01 04 31 37 c4 13 {17 1250} <nil>
}
