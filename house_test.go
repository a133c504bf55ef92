package amends_test

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// goFiles may start a goroutine by themselves; everything else owns its
// goroutines through an errgroup in a Run(ctx) error.
var goFiles = map[string]string{
	"outbox/redis.go":                     "a client call outlives the context that it does not heed, by its own timeouts",
	"coordinator/store/sqlstore/loads.go": "loads of several callers outlive each of them; Close waits for them",

	"sdk/participant.go": "waits for handlers, and gives up on those that ignore their context",
	"sdk/session.go":     "one goroutine a handler, counted in Participant.calls, which Run waits for",
}

// pure are the rooms that do no I/O, read no clock and no randomness.
var pure = []string{"saga", "saga/txn", "tcc"}

// impure is what pure rooms may not import, below or at these paths.
var impure = []string{
	"os", "io/fs", "net", "log", "sync", "syscall", "context", "runtime", "math/rand", "crypto/rand", "database/sql", "unsafe",
}

// clock is what pure rooms may not use of package time.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// topLevel are the folders there are; a new one is a new room in docs/architecture.md.
var topLevel = []string{"cmd", "coordinator", "deploy", "docs", "examples", "outbox", "proto", "saga", "sdk", "tcc"}

// testingInProduction finds what only tests may import.
func testingInProduction(tr *tree) []string {
	var found []string
	for _, s := range tr.production() {
		for _, p := range s.imports() {
			if under(p, "testing/...") && !inTestPackage(s.dir) {
				found = append(found, fmt.Sprintf("%s: imports %s: only _test.go files and *test packages may", s.path, p))
			}
		}
	}
	return found
}

// goroutines finds goroutines without an owner: go statements and
// sync.WaitGroup.Go. An errgroup's Go takes a function that returns an error.
func goroutines(tr *tree) []string {
	var found []string
	for _, s := range tr.production() {
		if goFiles[s.path] != "" || inTestPackage(s.dir) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if startsGoroutine(n) {
				found = append(found, tr.at(n)+": starts a goroutine without an owner; use errgroup, or name the file in goFiles and say why")
			}
			return true
		})
	}
	return found
}

func startsGoroutine(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Go" || len(n.Args) != 1 {
			return false
		}
		f, ok := n.Args[0].(*ast.FuncLit)
		return ok && f.Type.Results.NumFields() == 0
	}
	return false
}

// initFunctions finds work that happens because a package was imported.
func initFunctions(tr *tree) []string {
	var found []string
	for _, s := range tr.production() {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				found = append(found, tr.at(f)+": init functions do things that nobody asked for")
			}
		}
	}
	return found
}

// impurity finds what would make a machine's answer depend on anything but its
// arguments.
func impurity(tr *tree) []string {
	var found []string
	for _, s := range tr.production() {
		if !slices.Contains(pure, s.dir) {
			continue
		}
		for _, p := range s.imports() {
			if slices.ContainsFunc(impure, func(bad string) bool { return under(p, bad+"/...") }) {
				found = append(found, fmt.Sprintf("%s: %s is pure and may not import %s", s.path, s.dir, p))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
					found = append(found, fmt.Sprintf("%s: %s is pure and may not use time.%s", tr.at(n), s.dir, sel.Sel.Name))
				}
			}
			return true
		})
	}
	return found
}

// strayPackages finds Go code outside the named folders.
func strayPackages(tr *tree) []string {
	var found []string
	for _, s := range tr.files {
		top, _, below := strings.Cut(s.path, "/")
		if below && !slices.Contains(topLevel, top) {
			found = append(found, fmt.Sprintf("%s: %s is not one of the folders %v", s.path, top, topLevel))
		}
		if !below && !s.test {
			found = append(found, s.path+": the root holds no Go package, only tests")
		}
	}
	return found
}

// generatedElsewhere finds generated code that is not beside its .proto file.
func generatedElsewhere(tr *tree) []string {
	var found []string
	for _, s := range tr.files {
		if s.generated && !under(s.dir, "proto/...") {
			found = append(found, s.path+": generated code lives only under proto")
		}
	}
	return found
}

var houseRules = map[string]rule{
	"testing in production": testingInProduction,
	"goroutines":            goroutines,
	"init functions":        initFunctions,
	"purity":                impurity,
	"folders":               strayPackages,
	"generated code":        generatedElsewhere,
}

func TestHouse(t *testing.T) {
	tr := loadTree(t, os.DirFS("."))
	for name, rule := range houseRules {
		t.Run(name, func(t *testing.T) {
			for _, f := range rule(tr) {
				t.Error(f)
			}
		})
	}
}

func TestTopLevelFolders(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	ignored := []string{"bin"} // built, not kept
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) && !slices.Contains(ignored, e.Name()) {
			t.Errorf("%s is not one of the folders %v", e.Name(), topLevel)
		}
	}
}

// TestGoFilesAreNeeded keeps the list of exceptions as short as it can be.
func TestGoFilesAreNeeded(t *testing.T) {
	tr := loadTree(t, os.DirFS("."))
	starts := map[string]bool{}
	for _, s := range tr.production() {
		ast.Inspect(s.file, func(n ast.Node) bool {
			starts[s.path] = starts[s.path] || startsGoroutine(n)
			return true
		})
	}
	for p := range goFiles {
		if !starts[p] {
			t.Errorf("%s is in goFiles and starts no goroutine: take it out (%s)", path.Clean(p), goFiles[p])
		}
	}
}

func TestHouseFindsWhatIsWrong(t *testing.T) {
	for _, w := range []wrong{
		{name: "testing", rule: testingInProduction, path: "sdk/a.go", text: "package sdk\nimport \"testing\"", want: "imports testing"},
		{name: "testing/synctest", rule: testingInProduction, path: "sdk/a.go", text: "package sdk\nimport \"testing/synctest\"", want: "imports testing/synctest"},
		{name: "testing in a kit", rule: testingInProduction, path: "sdk/sdktest/a.go", text: "package sdktest\nimport \"testing\""},
		{name: "go", rule: goroutines, path: "sdk/a.go", text: "package sdk\nfunc f() { go f() }", want: "sdk/a.go:2"},
		{name: "WaitGroup.Go", rule: goroutines, path: "sdk/a.go", text: "package sdk\nfunc f() { wg.Go(func() {}) }", want: "sdk/a.go:2"},
		{name: "errgroup", rule: goroutines, path: "sdk/a.go", text: "package sdk\nfunc f() { g.Go(func() error { return nil }) }"},
		{name: "init", rule: initFunctions, path: "sdk/a.go", text: "package sdk\nfunc init() {}", want: "sdk/a.go:2"},
		{name: "init method", rule: initFunctions, path: "sdk/a.go", text: "package sdk\nfunc (t T) init() {}"},
		{name: "clock", rule: impurity, path: "saga/a.go", text: "package saga\nimport \"time\"\nvar x = time.Now()", want: "time.Now"},
		{name: "durations", rule: impurity, path: "saga/a.go", text: "package saga\nimport \"time\"\nvar x = time.Second"},
		{name: "randomness", rule: impurity, path: "tcc/a.go", text: "package tcc\nimport \"math/rand/v2\"", want: "may not import math/rand/v2"},
		{name: "new folder", rule: strayPackages, path: "util/a.go", text: "package util", want: "util is not one"},
		{name: "package at the root", rule: strayPackages, path: "a.go", text: "package amends", want: "only tests"},
		{name: "generated", rule: generatedElsewhere, path: "sdk/a.go", text: "// Code generated by x. DO NOT EDIT.\n\npackage sdk", want: "only under proto"},
	} {
		t.Run(w.name, w.check)
	}
}
