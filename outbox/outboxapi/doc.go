// Package outboxapi serves amends.v1.OutboxService over one outbox.Operator: the
// API by which people look into the outbox of a service's database and act on
// it. `amends relay --listen` serves it; a service can do so beside its own API:
//
//	api := outboxapi.New(box.Operator(db), &outboxapi.Config{Actor: subject})
//	amendsv1.RegisterOutboxServiceServer(server, api)
//
// It asks nobody who they are: put that before it. Every error is an
// amendsv1.Error.
package outboxapi
