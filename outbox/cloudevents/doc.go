// Package cloudevents turns CloudEvents 1.0 into messages of the outbox and back,
// by the Kafka protocol binding and the JSON event format of the specification
// (version 1.0.2), in both of its modes:
//
//   - Binary: the attributes are headers named ce_…, the data is the body.
//   - Structured: attributes and data are one JSON document, of content type
//     application/cloudevents+json.
//
// Parse reads both, also from other producers, and refuses what is no valid
// event, naming the attribute. Handler does that in front of an inbox.Consumer's
// handler, and sees to it that an event which came without an Amends id is
// handled once all the same.
//
// The mapping is this package's own: it is small, and the official SDK's event
// package brings a JSON library that is no longer kept.
package cloudevents
