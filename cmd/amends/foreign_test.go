package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amends-dev/amends/sdk"
)

// TestForeignClient lists and acts by reflection: no client of ours, and no
// .proto file.
func TestForeignClient(t *testing.T) {
	grpcurl, err := filepath.Abs("../../bin/tools/grpcurl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(grpcurl); err != nil {
		t.Skip("needs grpcurl: `make test` builds it")
	}
	_, addr := serve(t, t.TempDir())
	if _, err := begin(t.Context(), sdk.NewClient(connect(t, addr), &sdk.ClientConfig{Logger: quiet()}), "foreign", false); err != nil {
		t.Fatal(err)
	}
	ask := func(want string, args ...string) {
		t.Helper()
		args = append([]string{"-plaintext", "-max-time", "10"}, args...)
		out, err := exec.CommandContext(t.Context(), grpcurl, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("grpcurl %q: %v, want %q in\n%s", args, err, want, out)
		}
	}
	ask("amends.v1.OperatorService", addr, "list")
	ask(`"gid": "foreign"`, "-d", `{"filter": "unfinished = true"}`, addr, "amends.v1.AdminService/ListTransactions")
	ask(`"paused": true`, "-d", `{"gid": "foreign", "reason": "a test"}`, addr, "amends.v1.OperatorService/Pause")
	ask("VERB_RESUME", "-d", `{"gid": "foreign"}`, addr, "amends.v1.AdminService/GetTransaction")
}
