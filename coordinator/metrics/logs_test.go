package metrics_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logged are the rooms that know which transaction they log about.
var logged = []string{"../internal/engine", "../internal/dispatch", "../internal/api", "../../sdk"}

// aboutNone are the lines that are about no single transaction, by their
// messages. A new line is either one of them or names its gid.
var aboutNone = []string{
	"amends: a bulk was interrupted, and goes on with the next sweep", // it has an id of its own
	"amends: commit failed, trying again",                             // of many
	"amends: finished transactions could not be purged, trying again",
	"amends: leases could not be renewed, trying again",
	"amends: leases were not given back and will expire",
	"amends: an operator changes who takes shards",
	"amends: not all shards were handed over before the end; others take them when it has come",
	"amends: shards could not be handed over",
	"amends: shards handed over",
	"amends: shards lost to another coordinator",
	"amends: sweep failed, trying again",
	"api: the members could not be read",
	"api: internal error", // of a request; an error that is about a transaction names it
	"participant connected",
	"participant disconnected",
	"participant turned away",
	"sdk: a coordinator answers",
	"sdk: a coordinator cannot be dialled",
	"sdk: a coordinator cannot be reached",
	"sdk: a coordinator left the cluster",
	"sdk: attending",
	"sdk: cannot purge the guard's claims, trying again", // of many
	"sdk: purged the guard's claims of transactions that have ended",
	"sdk: the cluster is closed",
}

var levels = []string{"Debug", "Info", "Warn", "Error", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"}

// nameless finds log lines without a gid whose message is not in none. used
// tells which of none were met.
func nameless(fset *token.FileSet, f *ast.File, none []string, used map[string]bool) (found []string) {
	for _, d := range f.Decls {
		named := map[string]bool{} // loggers that have a gid already
		ast.Inspect(d, func(n ast.Node) bool {
			if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == 1 && len(a.Rhs) == 1 {
				if id, ok := a.Lhs[0].(*ast.Ident); ok && method(a.Rhs[0]) == "With" && hasGID(a.Rhs[0].(*ast.CallExpr)) {
					named[id.Name] = true
				}
			}
			call, ok := n.(*ast.CallExpr)
			if !ok || !slices.Contains(levels, method(call)) {
				return true
			}
			message, isLog := messageOf(call)
			if !isLog || hasGID(call) {
				return true
			}
			if id, ok := call.Fun.(*ast.SelectorExpr).X.(*ast.Ident); ok && named[id.Name] {
				return true
			}
			if slices.Contains(none, message) {
				used[message] = true
				return true
			}
			found = append(found, fmt.Sprintf("%s: %q has no gid", fset.Position(call.Pos()), message))
			return true
		})
	}
	return found
}

func method(x ast.Expr) string {
	if call, ok := x.(*ast.CallExpr); ok {
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
			return sel.Sel.Name
		}
	}
	return ""
}

// messageOf returns the first text among the first two arguments, which is a
// log line's message.
func messageOf(call *ast.CallExpr) (string, bool) {
	for _, x := range call.Args[:min(2, len(call.Args))] {
		if s, ok := text(x); ok {
			return s, true
		}
	}
	return "", false
}

func text(x ast.Expr) (string, bool) {
	lit, ok := x.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

func hasGID(call *ast.CallExpr) bool {
	return slices.ContainsFunc(call.Args, func(x ast.Expr) bool {
		s, ok := text(x)
		return ok && s == "gid"
	})
}

func TestLogLinesNameTheirTransaction(t *testing.T) {
	used := map[string]bool{}
	for _, dir := range logged {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, wrong := range nameless(fset, f, aboutNone, used) {
				t.Error(wrong)
			}
		}
	}
	for _, message := range aboutNone {
		if !used[message] {
			t.Errorf("no line says %q any more: take it out of aboutNone", message)
		}
	}
}

func TestNamelessFindsWhatIsWrong(t *testing.T) {
	for line, want := range map[string]int{
		`log.Warn("a call failed", "err", err)`:                          1,
		`log.Warn("a call failed", "gid", gid)`:                          0,
		`l := log.With("gid", gid); l.InfoContext(ctx, "refused")`:       0,
		`l := log.With("service", s); l.InfoContext(ctx, "refused")`:     1,
		`log.Info("of many", "count", 2)`:                                0,
		`t.rows.Error(); fmt.Errorf("x"); w.log.ErrorContext(ctx, "oh")`: 1,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "a.go", "package a\nfunc f() { "+line+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		if found := nameless(fset, f, []string{"of many"}, map[string]bool{}); len(found) != want {
			t.Errorf("%s: found %q, want %d", line, found, want)
		}
	}
}
