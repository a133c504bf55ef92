package api_test

import (
	"testing"

	"github.com/amends-dev/amends/coordinator/internal/api"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// A check is refused as an action of a step is: when its service is connected and
// does not offer it, but not when the transaction was begun before.
func TestBeginWithACheck(t *testing.T) {
	h := newHost(t, api.Config{})
	begin := func(gid, action string) (*amendsv1.BeginTccResponse, error) {
		return h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{
			Gid: gid, Name: "message", Check: &amendsv1.CheckBack{Action: action}})
	}
	_, err := begin("g", "accounts.crdit")
	wantErr(t, err, amendsv1.ErrUnknownAction, "check.action", `"accounts.crdit"`)
	_, err = begin("g", "")
	wantErr(t, err, amendsv1.ErrInvalidDefinition, "check.action is empty")
	_, err = begin("g", "crdit")
	wantErr(t, err, amendsv1.ErrInvalidDefinition, "check.action")
	resp, err := begin("g", "nobody.is.here.yet")
	if noErr(t, err); !resp.GetCreated() {
		t.Error("it was there before")
	}
	_, err = begin("g", "nobody.is.here.either")
	wantErr(t, err, amendsv1.ErrGIDConflict)
}
