// Package schema is how values become the bodies of messages and back, with a
// schema that both sides agree on: a Serializer and a Deserializer, two small
// interfaces that anybody can implement.
//
// Packages schema/jsonschema, schema/protobuf and schema/avro implement both, each
// with its own dependency, which nobody else pays for. Each works alone, with a
// schema that writer and reader bring, or with a Registry, which numbers schemas
// and decides whether a new one is compatible: package schema/registry speaks to
// registries with Confluent's HTTP API.
//
//	m, err := schema.Message(ctx, orders, outbox.Message{Topic: "orders", Key: id}, order)
//	…
//	err = box.Write(ctx, tx, m)
//
//	consumer, err := inbox.NewConsumer(…, schema.Handler(orders, handleOrder), nil)
//
// Serialize before the transaction begins, where that is possible: the first
// message of a schema asks the registry.
package schema
