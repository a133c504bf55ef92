// Package wire turns what the coordinator works with into what goes over the
// wire, and back: enums by tables, definitions from requests, transactions and
// audit events into messages. It decides nothing and does no I/O.
//
// Messages made here can always be sent: a text with bytes that are not UTF-8
// gets them visibly escaped (amendsv1.ValidText).
package wire
