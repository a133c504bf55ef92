// Package auth tells who calls a coordinator and what they may do.
//
// An Authenticator turns credentials (a static token, a JWT, a client's
// certificate) into an Identity: a subject, roles in namespaces, and the
// services that it may answer for. OpenFile makes one of a file that is read
// again when it changes. A Guard asks it at every RPC, looks the RPC up in one
// table of methods and roles, and hands the Caller on in the context:
//
//	file, err := auth.OpenFile("auth.json", log)
//	guard, err := auth.New(file, nil)
//	c, err := coordinator.New(ctx, store, &coordinator.Config{Auth: guard, TLS: tlsConfig})
//
// Nothing is allowed that the table does not list. No token, and nothing else
// that came with a request but names, is in an error or in a log.
package auth
