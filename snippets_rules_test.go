package amends_test

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestSnippetsFindsWhatIsWrong(t *testing.T) {
	fsys := fstest.MapFS{
		"a.go":    {Data: []byte("package a\n\nfunc F() {\n\tif x {\n\t\tg()\n\t}\n}\n")},
		".ci/run": {Data: []byte("step make test\n")},
	}
	for _, c := range []struct{ name, text, want string }{
		{"excerpt", "<!-- from a.go -->\n```go\nif x {\n\tg()\n}\n```\n", ""},
		{"excerpt that changed", "<!-- from a.go -->\n```go\nif x {\n\th()\n}\n```\n", "not an excerpt of a.go"},
		{"excerpt of half a line", "<!-- from a.go -->\n```go\nf x {\n```\n", "not an excerpt of a.go"},
		{"excerpt of no file", "<!-- from b.go -->\n```go\nif x {\n```\n", "b.go"},
		{"mark that is not next to it", "<!-- from a.go -->\ntext\n```go\nif x {\n```\n", "needs a package clause"},
		{"no mark", "```go\nif x {\n```\n", "needs a package clause"},
		{"program", "```go\npackage main\n\nfunc main() {}\n```\n", ""},
		{"command", "```sh\nmake test   # all of it\n```\n", ""},
		{"unknown command", "```sh\nmake tests\n```\n", `"make tests" is not in shownCommands`},
		{"prompt", "```console\n$ make test\nok\n```\n", ""},
		{"command whose test is gone", "```sh\nmake demo\n```\n", `.ci/run has no "step make demo"`},
		{"another language", "```json\n{}\n```\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := blocks("x.md", c.text)
			if len(found) != 1 {
				t.Fatalf("found %d blocks, want 1", len(found))
			}
			if wrong := found[0].check(fsys); (c.want == "") != (wrong == "") || !strings.Contains(wrong, c.want) {
				t.Errorf("says %q, want %q", wrong, c.want)
			}
		})
	}
}

func TestBlocksOfADocument(t *testing.T) {
	found := blocks("x.md", "a\n```sh\none\n```\n\n<!-- run: hi -->\n\n```go\npackage main\n```\n<!-- from a.go -->\n```go\nx\n```\n")
	var got []string
	for _, b := range found {
		got = append(got, b.where+" "+b.language+" "+b.mark)
	}
	want := "x.md:2 sh , x.md:8 go <!-- run: hi -->, x.md:12 go <!-- from a.go -->"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("found %q, want %q", s, want)
	}
}

func TestOutputOfACommand(t *testing.T) {
	b := block{language: "console", text: "$ one\nfirst\nsecond\n$ two\nthird\n"}
	if got, want := b.output("one"), "first\nsecond"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := b.output("two"), "third"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := b.output("three"); got != "" {
		t.Errorf("got %q of a command that is not shown", got)
	}
}
