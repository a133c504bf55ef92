package sdk

import (
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// BenchmarkInvoke compares a request over a Cluster with one over a connection.
// The answer is there at once: the difference is the Cluster's.
func BenchmarkInvoke(b *testing.B) {
	_, m := newFakeCluster(b, 1)
	conn, err := grpc.NewClient(m[0].address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	cluster := dialFakes(b, m...)
	for name, conn := range map[string]grpc.ClientConnInterface{"conn": conn, "cluster": cluster} {
		for _, clients := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/%d", name, clients), func(b *testing.B) {
				rpc := amendsv1.NewTransactionServiceClient(conn)
				b.SetParallelism(clients)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := rpc.StartSaga(b.Context(), &amendsv1.StartSagaRequest{Gid: "g"}); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}
