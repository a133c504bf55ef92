package amends_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the documentation shows is true because this test tries it. In README.md
// and docs/*.md a fenced block is
//
//   - go, beginning with a package clause: a whole program, compiled here. After
//     a line <!-- run: TEXT --> it is run, and must print TEXT.
//   - go, after a line <!-- from PATH -->: an excerpt that stands in that file,
//     line by line but for indentation; the file is compiled and tested itself.
//   - sh or console: each command must be in the table of shownCommands.
//   - anything else: not looked at.

// block is one fenced block.
type block struct {
	where, language, mark, text string
}

// testedBy is where a command is tested: a file, and what must stand in it.
type testedBy struct{ file, what string }

const (
	ci        = ".ci/run"
	testTx    = "cmd/amends/tx_test.go"
	testDev   = "cmd/amends/dev_test.go"
	testServ  = "cmd/amends/serve_test.go"
	testOp    = "cmd/amends/operate_test.go"
	testAct   = "cmd/amends/act_test.go"
	testAudit = "cmd/amends/audit_test.go"
	testLogin = "cmd/amends/login_test.go"
)

// shownCommands says of each command that the documentation shows what runs it:
// a test function, or the script of CI.
var shownCommands = map[string]testedBy{
	"make help":   {"snippets_test.go", "TestMakeHelp"},
	"make build":  {ci, "step make build"},
	"make demo":   {ci, "step make demo"},
	"make test":   {ci, "step make test"},
	"make verify": {ci, "step make verify"},
	"make lint":   {ci, "step make lint"},

	"amends bench": {"cmd/amends/bench_test.go", "TestBench"},
	"AMENDS_MYSQL_DSN='root:…@tcp(127.0.0.1:3306)/mysql' amends bench saga tcc --store mysql --repeat 5": {"cmd/amends/bench_test.go", "TestBench"},

	"go run ./examples/transfer -coordinator 127.0.0.1:7460": {"examples/transfer/main_test.go", "TestTransferElsewhere"},

	"make torture": {"cmd/torture/torture_test.go", "TestTorture"},

	"go run ./examples/transfer": {"snippets_test.go", "TestExampleOutput"},

	"amends tx list --stalled": {testOp, "TestStalled"},
	"amends bulk start retry --participant bank --reason 'bank is back' --wait": {testOp, "TestStalled"},
	"amends tx list --state parked --label order_id=A-17":                       {testTx, `t.Run("filter"`},
	"amends cluster":        {testAct, "TestCluster"},
	"amends cluster whoami": {testAct, "TestCluster"},
	"AMENDS_MYSQL_DSN='amends:…@tcp(db:3306)/amends' amends serve --advertise 10.0.0.1:7460": {"cmd/amends/rolling_test.go", "TestRollingRestart"},

	"amends cluster members":                                                   {testAct, "TestCluster"},
	"amends cluster drain m1 --reason 'a new disk'":                            {"cmd/amends/rolling_test.go", "TestRollingRestart"},
	"amends cluster undrain m1 --reason 'it is there'":                         {"cmd/amends/rolling_test.go", "TestRollingRestart"},
	"amends bulk start abort --unfinished --dry-run":                           {testAct, "TestBulk"},
	"amends bulk list":                                                         {testAct, "TestBulk"},
	"amends bulk get ID":                                                       {testAct, "TestBulk"},
	"amends bulk cancel ID --reason 'too early'":                               {testAct, "TestBulk"},
	"amends audit verify --all":                                                {testAudit, "TestAuditFinds"},
	"amends audit verify --file audit.jsonl":                                   {testAudit, "TestAuditFinds"},
	"amends audit verify --all --against audit.jsonl":                          {testAudit, "TestAuditFinds"},
	"amends audit export --since 24h":                                          {testAudit, "TestAuditExportSelects"},
	"amends token new --subject olga@example.com --grant operator --ttl 2160h": {testLogin, "TestTokenNew"},
	"amends outbox depth --sqlite orders.db":                                   {"cmd/amends/outbox_test.go", "TestOutbox"},
	"amends migrate":                                                           {"cmd/amends/migrate_test.go", "TestMigrate"},
	"amends migrate outbox":                                                    {"cmd/amends/migrate_test.go", "TestMigrate"},

	"amends serve --data-dir /var/lib/amends --listen 0.0.0.0:7460 --tls-cert server.crt --tls-key server.key " +
		"--client-ca clients.crt --auth-file auth.json": {testLogin, `"--tls-cert"`},

	"curl 127.0.0.1:7463/v1/outbox":             {"cmd/amends/outboxhttp_test.go", "curl 127.0.0.1:7463/v1/outbox"},
	"curl 127.0.0.1:7463/v1/outbox/deadLetters": {"cmd/amends/outboxhttp_test.go", "curl 127.0.0.1:7463/v1/outbox/deadLetters"},
	`curl 127.0.0.1:7463/v1/outbox/deadLetters:replay --json '{"numbers": [1], "reason": "the broker is back"}'`: {
		"cmd/amends/outboxhttp_test.go",
		`curl 127.0.0.1:7463/v1/outbox/deadLetters:replay --json '{"numbers": [1], "reason": "the broker is back"}'`},
	"curl 127.0.0.1:7463/metrics": {"cmd/amends/outboxhttp_test.go", "curl 127.0.0.1:7463/metrics"},

	"curl --get 127.0.0.1:7461/v1/transactions --data-urlencode 'filter=stalled = true'": {
		"cmd/amends/outside_test.go", "curl --get 127.0.0.1:7461/v1/transactions --data-urlencode 'filter=stalled = true'"},
	`curl 127.0.0.1:7461/v1/transactions/order-17:retryNow --json '{"reason": "bank is back"}'`: {
		"cmd/amends/outside_test.go", `curl 127.0.0.1:7461/v1/transactions/order-17:retryNow --json '{"reason": "bank is back"}'`},

	"bin/amends dev": {testDev, "TestDevRunsEverything"},
	"bin/amends serve --data-dir /var/lib/amends": {testServ, "TestServeAnswersAndDrains"},
	"bin/amends tx list":                          {testTx, `t.Run("list"`},
	"bin/amends version":                          {testServ, "TestVersion"},
	"amends tx list":                              {testTx, `t.Run("list"`},
	"amends tx get GID":                           {testTx, "func getOne"},
	"amends tx events GID":                        {testTx, "func eventsOfOne"},
	"amends tx watch GID":                         {"cmd/amends/watch_test.go", "TestWatchGoesOnAfterARestart"},

	`amends tx list --filter 'state = "ROLLING_BACK"'`: {testTx, `t.Run("filter"`},

	`amends tx list --filter 'unfinished = true AND labels.order_id = "A-17"' --output json`: {testTx, `t.Run("filter"`},
}

var (
	fence  = regexp.MustCompile("^```([a-z]*)$")
	marked = regexp.MustCompile(`^<!-- (run|from)(?::)? (.+) -->$`)
)

// blocks cuts a document into its fenced blocks.
func blocks(name, text string) []block {
	var found []block
	var cur *block
	mark := ""
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case cur != nil && trimmed == "```":
			found = append(found, *cur)
			cur = nil
		case cur != nil:
			cur.text += line + "\n"
		case fence.MatchString(trimmed):
			cur = &block{where: fmt.Sprintf("%s:%d", name, i+1), language: fence.FindStringSubmatch(trimmed)[1], mark: mark}
			mark = ""
		case marked.MatchString(trimmed):
			mark = trimmed
		case trimmed != "":
			mark = ""
		}
	}
	return found
}

// documents returns the blocks of all that people read.
func documents(t *testing.T) []block {
	t.Helper()
	names, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []block
	for _, name := range append(names, "README.md", "CONTRIBUTING.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, blocks(name, string(text))...)
	}
	return found
}

// commands returns what a reader would type: after a prompt if the block shows
// prompts, otherwise every line that is not a comment.
func (b block) commands() []string {
	prompts := strings.HasPrefix(b.text, "$ ") || strings.Contains(b.text, "\n$ ")
	var found []string
	for line := range strings.Lines(b.text) {
		line, _, _ = strings.Cut(line, "   #")
		line = strings.TrimSpace(line)
		command, prompted := strings.CutPrefix(line, "$ ")
		if command != "" && command[0] != '#' && prompted == prompts {
			found = append(found, command)
		}
	}
	return found
}

// output returns what the block shows below a prompt with the command.
func (b block) output(command string) string {
	_, after, _ := strings.Cut("\n"+b.text, "\n$ "+command+"\n")
	shown, _, _ := strings.Cut(after, "\n$ ")
	return strings.TrimSpace(shown)
}

// excerpt reports whether the block's lines stand in text, one after another,
// whatever their indentation.
func (b block) excerpt(text string) bool {
	flat := func(s string) string {
		var out strings.Builder
		out.WriteByte('\n')
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); line != "" {
				out.WriteString(line + "\n")
			}
		}
		return out.String()
	}
	return strings.Contains(flat(text), flat(b.text))
}

// check says what is wrong with a block, or "". Programs are compiled elsewhere.
func (b block) check(fsys fs.FS) string {
	switch b.language {
	case "go":
		return b.checkGo(fsys)
	case "sh", "console", "bash", "shell":
		for _, c := range b.commands() {
			by, ok := shownCommands[c]
			if !ok {
				return fmt.Sprintf("command %q is not in shownCommands: say which test runs it", c)
			}
			text, err := fs.ReadFile(fsys, by.file)
			if err != nil || !strings.Contains(string(text), by.what) {
				return fmt.Sprintf("command %q: %s has no %q", c, by.file, by.what)
			}
		}
	}
	return ""
}

func (b block) checkGo(fsys fs.FS) string {
	if b.program() {
		return ""
	}
	m := marked.FindStringSubmatch(b.mark)
	if m == nil || m[1] != "from" {
		return "a Go block needs a package clause or a line <!-- from PATH --> before it"
	}
	text, err := fs.ReadFile(fsys, m[2])
	if err != nil {
		return err.Error()
	}
	if !b.excerpt(string(text)) {
		return "is not an excerpt of " + m[2] + " any more"
	}
	return ""
}

// program reports whether the block is a whole file.
func (b block) program() bool {
	return regexp.MustCompile(`(?m)^package \w+$`).MatchString(b.text)
}

func TestSnippets(t *testing.T) {
	for _, b := range documents(t) {
		if wrong := b.check(os.DirFS(".")); wrong != "" {
			t.Errorf("%s: %s", b.where, wrong)
		}
		if b.language == "go" && b.program() {
			t.Run(b.where, func(t *testing.T) { build(t, b) })
		}
	}
}

// build compiles a program as if it lay in examples, and runs it if it is
// marked so.
func build(t *testing.T, b block) {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(root, "examples", "snippet", "main.go"): file},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{file: b.text, file + ".json": string(overlay)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "snippet")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", file+".json", "-o", binary,
		"./examples/snippet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := marked.FindStringSubmatch(b.mark)
	if m == nil || m[1] != "run" {
		return
	}
	run := exec.CommandContext(t.Context(), binary)
	run.Dir = dir
	out, err := run.CombinedOutput()
	if err != nil || !strings.Contains(string(out), m[2]) {
		t.Errorf("%v: want %q in\n%s", err, m[2], out)
	}
}

func TestMakeHelp(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "make", "help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, target := range strings.Fields("help build demo test race sim fuzz bench lint verify generate cover clean") {
		if !regexp.MustCompile(`(?m)^  ` + target + ` +\S`).Match(out) {
			t.Errorf("make help does not explain %q:\n%s", target, out)
		}
	}
	if strings.Contains(string(out), "\x1b") {
		t.Error("make help is coloured where there is no terminal")
	}
}

// TestExampleOutput runs what the README says that the first saga prints.
func TestExampleOutput(t *testing.T) {
	const command = "go run ./examples/transfer"
	for _, b := range documents(t) {
		want := b.output(command)
		if want == "" {
			continue
		}
		out, err := exec.CommandContext(t.Context(), "go", strings.Fields(command)[1:]...).Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %v: %s prints\n%s\nand not\n%s", b.where, err, command, out, want)
		}
	}
}
