package main_test

import (
	"regexp"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/amends-dev/amends/sdk"
)

func TestServeAnswersAndDrains(t *testing.T) {
	p, addr := serve(t, t.TempDir())
	resp, err := healthpb.NewHealthClient(connect(t, addr)).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v, want SERVING", resp.GetStatus(), err)
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code after SIGTERM is %d, want 0; it said:\n%s", code, p.everything())
	}
}

func TestServeKeepsTransactionsOverAGracefulStop(t *testing.T) {
	dir := t.TempDir()
	p, addr := serve(t, dir)
	client := sdk.NewClient(connect(t, addr), &sdk.ClientConfig{Logger: quiet()})
	if _, err := begin(t.Context(), client, "kept", false); err != nil { // nobody offers its actions yet
		t.Fatal(err)
	}
	if code := p.stop(t); code != 0 {
		t.Fatalf("exit code %d; it said:\n%s", code, p.everything())
	}
	_, addr = serve(t, dir)
	conn := connect(t, addr)
	openBank(t, conn)
	if err := sdk.NewClient(conn, nil).Run("kept").Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDataDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir)
	r := amends(t, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
	if r.code != 1 || !strings.Contains(r.stderr, dir) || !strings.Contains(r.stderr, "in use by another process") {
		t.Errorf("exit code %d, said %q; want 1 and that %s is in use", r.code, r.stderr, dir)
	}
}

func TestAddressInUse(t *testing.T) {
	_, addr := serve(t, t.TempDir())
	r := amends(t, "serve", "--data-dir", t.TempDir(), "--listen", addr)
	if r.code != 1 || !strings.Contains(r.stderr, "--listen "+addr) {
		t.Errorf("exit code %d, said %q; want 1 and the address", r.code, r.stderr)
	}
}

func TestInsecureAllowsOtherAddresses(t *testing.T) {
	p := start(t, "serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--insecure")
	p.waitFor(t, `^amends: serving on 127\.0\.0\.1:\d+ `)
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"nonsense", `unknown command "nonsense" for "amends"`},
		{"tx nonsense", `unknown command "nonsense" for "amends tx"`},
		{"--nonsense", "unknown flag: --nonsense"},
		{"serve", "give --data-dir or --mysql, or set AMENDS_MYSQL_DSN"},
		{"serve --data-dir=", "--data-dir is empty"},
		{"serve --mysql=", "--mysql is empty"},
		{"serve --data-dir x --mysql root:secret@/x", "--data-dir and --mysql exclude each other"},
		{"serve --data-dir x --max-conns 4", "--max-conns is for --mysql"},
		{"serve --mysql root:secret@/x --max-conns 1", "--max-conns is 1: give 2 or more"},
		{"serve --data-dir x --max-live -1", "--max-live is -1"},
		{"serve --data-dir x --lease-ttl 10ms", "--lease-ttl is 10ms: give 1s or more"},
		{"serve root:secret@/x", "may hold a password"},
		{"serve extra", `unexpected argument "extra"`},
		{"serve --data-dir x --listen 0.0.0.0:7460", "give --tls-cert, --tls-key and --auth-file"},
		{"serve --data-dir x --listen :7460", "not a loopback address"},
		{"serve --data-dir x --listen example.com:7460", "not a loopback address"},
		{"serve --data-dir x --listen [::]:7460", "not a loopback address"},
		{"serve --data-dir x --listen 7460", "want host:port"},
		{"serve --data-dir x --http 0.0.0.0:7461", "--http"},
		{"serve --data-dir x --listen :7460 --auth-file a", "not a loopback address"},
		{"serve --data-dir x --listen :7460 --tls-cert a --tls-key b", "not a loopback address"},
		{"serve --data-dir x --tls-cert a", "--tls-cert and --tls-key belong together"},
		{"serve --data-dir x --client-ca a", "--client-ca is for TLS"},
		{"serve --data-dir x --tls-cert a --tls-key b --client-ca c", "give --auth-file too"},
		{"token new", "--subject is missing"},
		{"token new --subject a --grant king", "want viewer, operator, break-glass or service"},
		{"serve --data-dir x --log-level loud", "want debug, info, warn or error"},
		{"serve --data-dir x --retention soon", "invalid argument"},
		{"dev --kafka 0.0.0.0:9460", "--kafka"},
		{"relay --kafka x:1", "give --sqlite or --mysql, or set AMENDS_MYSQL_DSN"},
		{"relay --kafka x:1 --sqlite x --mysql root:secret@/x", "--sqlite and --mysql exclude each other"},
		{"migrate", "give --data-dir or --mysql, or set AMENDS_MYSQL_DSN"},
		{"migrate extra", `unexpected argument "extra"`},
		{"migrate outbox", "give --sqlite or --mysql, or set AMENDS_MYSQL_DSN"},
		{"relay --sqlite x.db", "nowhere to publish to"},
		{"relay --sqlite x.db --kafka x:1 --courier", "give --coordinator too"},
		{"relay --sqlite x.db --kafka x:1 --binlog table", "--binlog is for --mysql"},
		{"relay --mysql root:secret@/x --kafka x:1 --binlog rows", "give table or log"},
		{"relay --mysql root:secret@/x --kafka x:1 --binlog=", "give table or log"},
		{"relay --mysql root:secret@/x?tls=preferred --kafka x:1 --binlog log", "tls=preferred"},
		{"tx get", "want one argument"},
		{"tx get a b", "want one argument"},
		{"tx skip a", "want two arguments"},
		{"tx retry a", "--reason is missing"},
		{"tx complete a b --reason r --reply {", "is no JSON"},
		{"tx complete a b --reason r --reply @/absent", "--reply"},
		{"tx abandon a --reason r", "give --yes"},
		{"tx list --state lost", "want one of abandoned, committed"},
		{"tx list --label order_id", "want key=value"},
		{"tx list --timeout 0s", "--timeout is 0s"},
		{"tx list --addr h:1 --token secret", "must not travel in plaintext"},
		{"tx list --token secret --token-file x", "exclude each other"},
		{"tx list --token-file /absent", "--token-file"},
		{"tx list --tls-cert x", "belong together"},
		{"tx list --tls-ca /absent", "certificate authorities"},
		{"bulk start", "want one argument, the verb"},
		{"bulk start skip --unfinished", "cannot be done in bulk"},
		{"bulk start retry --reason r", "say which transactions"},
		{"bulk start retry --reason r --unfinished --rate 0", "--rate is 0"},
		{"bulk start abandon --reason r --unfinished", "give --yes"},
		{"bulk get", "the id of a bulk"},
		{"bulk cancel x", "--reason is missing"},
		{"audit verify", "say what to verify"},
		{"audit verify a --all", "in one way"},
		{"audit verify --file /absent", "--file"},
		{"audit export --since tomorrow", "--since"},
		{"cluster nonsense", `unknown command "nonsense" for "amends cluster"`},
		{"tx list --output xml", "want table or json"},
		{"tx list --limit 0", "--limit is 0"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := amends(t, strings.Fields(c.args)...)
			if r.code != 2 || !strings.Contains(r.stderr, c.want) {
				t.Errorf("exit code %d, said %q; want 2 and %q", r.code, r.stderr, c.want)
			}
			if strings.Contains(r.stderr, "secret") {
				t.Errorf("shows the password: %q", r.stderr)
			}
			if !strings.HasPrefix(r.stderr, "amends: ") || !strings.Contains(r.stderr, "--help'") || r.stdout != "" {
				t.Errorf("said %q and %q; want one error and where to find help", r.stderr, r.stdout)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"", "--help", "help", "serve --help", "migrate outbox --help", "tx", "tx list --help", "completion bash --help", "audit verify --help"} {
		if out := ok(t, strings.Fields(args)...); !strings.Contains(out, "Usage:") {
			t.Errorf("amends %s explains nothing: %q", args, out)
		}
	}
}

func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"completion bash": "bash completion", "completion zsh": "#compdef amends", "completion fish": "fish completion",
		"__complete tx re": "resume\t", "__complete bulk start a": "abandon\n", "__complete tx list --state pa": "parked\n",
	} {
		if out := ok(t, strings.Fields(args)...); !strings.Contains(out, want) {
			t.Errorf("amends %s: want %q in %.300q", args, want, out)
		}
	}
}

func TestVersion(t *testing.T) {
	if out := ok(t, "version"); !regexp.MustCompile(`^amends \S+ \(go1\.\S+ \w+/\w+\)\n$`).MatchString(out) {
		t.Errorf("said %q", out)
	}
	if out := ok(t, "version", "--output", "json"); !strings.Contains(out, `"version":`) {
		t.Errorf("said %q", out)
	}
}
