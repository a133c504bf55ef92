// Package sdk is what services use of Amends: it starts global transactions
// and waits for them, and it performs the calls that a coordinator makes.
//
// # Two sides
//
// A caller has a Client. RunSaga begins a saga and tells how it ended, in one
// request; Start and Run.Wait do it in two. RunTCC runs a TCC transaction from a
// function; StartTx begins a saga in the caller's own database transaction,
// through the outbox.
//
// A participant is a service that offers actions. NewParticipant, HandleSaga
// and HandleTCC say what it does and how that is taken back, and
// Participant.Run dials the coordinator and performs calls until its context
// ends. Any number of instances of one service may run.
//
// # Three answers
//
// A transaction committed everywhere, or it was undone everywhere, or nobody
// could be asked. Wait, RunSaga and RunTCC keep them apart: nil, *RolledBackError,
// *UnknownError. An UnknownError is no failure of the transaction, which goes
// on by itself: ask again with Client.Run and its gid.
//
// # What a handler may rely on
//
// A call is delivered at least once and takes effect once, because the handler
// and the guard's claim share one local database transaction, the *sql.Tx that
// the handler receives. Whatever the handler does through that transaction is
// done once and undone once; whatever it does elsewhere may happen more often
// (Info has an idempotency key for such calls). A handler neither commits nor
// rolls back: it returns nil and its effects stand, it returns Refuse(err) and
// the global transaction turns back, or it returns any other error (or panics,
// or runs out of time) and is called again.
//
// The guard remembers by rows of the table amends_inbox. They are needed until
// the transaction has ended, which may take months where a person has to decide.
// Run asks the coordinators, and deletes the rows of what has ended: PurgeConfig
// says when.
//
// # A cluster of coordinators
//
// Dial connects to every coordinator of a cluster, and what it returns is used in
// place of a connection:
//
//	cluster, err := sdk.Dial([]string{"amends-1:7460", "amends-2:7460"}, &sdk.DialConfig{
//		Options: []grpc.DialOption{grpc.WithTransportCredentials(creds)},
//	})
//	client := sdk.NewClient(cluster, nil)
//	g.Go(func() error { return participant.Run(ctx, cluster) })
//
// It learns the other members from the ones given and follows those that come and
// go. A client's requests are repeated at another member where twice is once, so
// that the death of a coordinator makes them slower and not fail; a participant
// keeps a stream to each member. A plain connection works as well, to a cluster of
// one or through a proxy: it has one member's fate.
//
// # Namespaces and credentials
//
// Transactions belong to a namespace, and a gid is unique within one. A Client
// and a Participant are each in one, which their configuration names; without a
// name it is the only one that their credentials have a role in, else the
// default one. Credentials are the connection's: BearerToken, or a client
// certificate in its TLS configuration. A service needs the role "service", and
// a participant's credentials must name its service.
package sdk
