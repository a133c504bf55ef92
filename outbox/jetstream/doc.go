// Package jetstream publishes an outbox to NATS JetStream.
//
// A message is acknowledged when the stream that takes its subject has stored
// it. Of each key at most one message waits for its acknowledgement, so that a
// failure, whatever its kind, holds back what comes after it.
//
// The server knows a message again by its topic and id for as long as the
// stream's duplicate window, 2 minutes by default: within it a message whose
// acknowledgement was lost is stored once, however often it is published. What
// comes later is for the consumer's inbox to drop.
//
//	nc, err := nats.Connect("nats://nats:4222", append(jetstream.Options(), nats.UserCredentials("amends.creds"))...)
//	p, err := jetstream.New(nc, nil)
//	relay := outbox.NewRelay(box, db, outbox.Route(map[string]outbox.Publisher{"orders.placed": p}, kafka), nil)
package jetstream
