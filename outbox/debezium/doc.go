// Package debezium writes and reads messages as Debezium's outbox event router
// does (io.debezium.transforms.outbox.EventRouter), for services that move from
// it to Amends and for consumers of topics that it still writes:
//
//	column of its table   message
//	id                    header id
//	aggregatetype         topic, outbox.event.${routedByValue} by default
//	aggregateid           key
//	type                  a header, where table.fields.additional.placement says so
//	payload               body
//	tracingspancontext    header traceparent
//
// Router.Message makes such a message, to be written through the outbox;
// Router.Parse reads one, whoever wrote it; Router.Handler does so in front of an
// inbox.Consumer's handler, and knows an event by its header id, so that one that
// both have published is handled once. docs/from-debezium.md is the
// guide to move.
//
// The router's bytes depend on the converters of Kafka Connect: say which with
// Config.
package debezium
