package coordinator_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/proto/amends/v1"
)

// TestBulkAcrossMembers: a bulk that one member has acts on the transactions of
// all, each time in the name of who started it, and each member knows how far it
// is.
func TestBulkAcrossMembers(t *testing.T) {
	ms := newMembers(t, 3, true)
	const n = 30
	for i := range n {
		tx := amendsv1.NewTransactionServiceClient(ms.all[i%3].conn)
		if _, err := tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{
			Gid: fmt.Sprintf("b%d", i), Name: "trip", Timeout: durationpb.New(time.Hour),
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range ms.all { // each has a bulk, or another member has it for them
		verb, id := amendsv1.Verb_VERB_PAUSE, fmt.Sprintf("bulk-%d", i)
		if i == 1 {
			verb = amendsv1.Verb_VERB_RESUME
		}
		resp, err := amendsv1.NewOperatorServiceClient(m.conn).StartBulk(t.Context(), &amendsv1.StartBulkRequest{
			Verb: verb, Filter: "kind = tcc", Reason: "because", RequestId: id, Rate: 1000,
		})
		if err != nil {
			t.Fatal(err)
		}
		other := amendsv1.NewOperatorServiceClient(ms.all[(i+1)%3].conn)
		var bulk *amendsv1.Bulk
		eventually(t, resp.GetBulk().GetId()+" ends", func() bool {
			got, err := other.GetBulk(t.Context(), &amendsv1.GetBulkRequest{Id: id})
			bulk = got.GetBulk()
			return err == nil && bulk.GetState() == amendsv1.BulkState_BULK_STATE_DONE
		})
		if bulk.GetActed() != n || bulk.GetFailed() != 0 || bulk.GetSkipped() != 0 || bulk.GetActor() != "robot" {
			t.Errorf("%v of %d transactions: %v", verb, n, bulk)
		}
	}
	admin := amendsv1.NewAdminServiceClient(ms.all[0].conn)
	for i := range n {
		gid := fmt.Sprintf("b%d", i)
		resp, err := admin.ListEvents(t.Context(), &amendsv1.ListEventsRequest{Gid: gid})
		if err != nil {
			t.Fatal(err)
		}
		acts := ""
		for _, e := range resp.GetEvents() {
			if actor := e.GetDetail().GetFields()["actor"].GetStringValue(); e.GetType() == "pause" || e.GetType() == "resume" {
				acts += fmt.Sprintf("%s by %s, ", e.GetType(), actor)
			}
		}
		if want := "pause by robot, resume by robot, pause by robot, "; acts != want {
			t.Errorf("%s: %s; want %s", gid, acts, want)
		}
	}
	var sent uint64
	for _, m := range ms.all {
		sent += m.Stats().Forwarded.Sent
	}
	if sent < n { // of 30 starts, and three times 30 acts, two thirds are another member's
		t.Errorf("%d requests were forwarded", sent)
	}
}
