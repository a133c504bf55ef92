package amends_test

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// undocumentedPackages finds packages without a comment that says what they are.
func undocumentedPackages(tr *tree) []string {
	documented := map[string]bool{}
	for _, s := range tr.files {
		if !s.test || s.dir == "." {
			documented[s.dir] = documented[s.dir] || s.file.Doc.Text() != ""
		}
	}
	var found []string
	for dir, ok := range documented {
		if !ok {
			found = append(found, dir+": the package has no comment")
		}
	}
	slices.Sort(found)
	return found
}

// undocumentedSymbols finds exported names without a comment. In a group of
// constants or variables the group's comment counts, or one at the line's end.
func undocumentedSymbols(tr *tree) []string {
	var found []string
	for _, s := range tr.production() {
		for _, d := range s.file.Decls {
			for _, name := range undocumented(d) {
				found = append(found, fmt.Sprintf("%s: exported %s has no comment", tr.at(d), name))
			}
		}
	}
	return found
}

func undocumented(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || ast.IsExported(receiver(d))) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		var names []string
		for _, spec := range d.Specs {
			names = append(names, undocumentedSpec(d, spec)...)
		}
		return names
	}
	return nil
}

func undocumentedSpec(d *ast.GenDecl, spec ast.Spec) []string {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Name.IsExported() && spec.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) {
			return []string{spec.Name.Name}
		}
	case *ast.ValueSpec:
		if d.Doc != nil || spec.Doc != nil || spec.Comment != nil {
			return nil
		}
		var names []string
		for _, n := range spec.Names {
			if n.IsExported() {
				names = append(names, n.Name)
			}
		}
		return names
	}
	return nil
}

// receiver names the type that a method belongs to.
func receiver(d *ast.FuncDecl) string {
	x := d.Recv.List[0].Type
	for {
		switch t := x.(type) {
		case *ast.StarExpr:
			x = t.X
		case *ast.IndexExpr:
			x = t.X
		case *ast.IndexListExpr:
			x = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

// Bounds of what a reader can hold in mind. Most must lie below; an exception
// is allowed where splitting would tear one idea apart.
const (
	maxFile     = 350 // lines, for 90 % of the files
	maxFunction = 45  // lines, for 95 % of the functions
)

// tooLong measures files and functions, production code and tests apart.
func tooLong(tr *tree) []string {
	var found []string
	for _, test := range []bool{false, true} {
		var files, functions []int
		for _, s := range tr.files {
			if s.generated || s.test != test {
				continue
			}
			files = append(files, s.lines)
			for _, d := range s.file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					functions = append(functions, tr.fset.Position(f.End()).Line-tr.fset.Position(f.Pos()).Line+1)
				}
			}
		}
		if n := percentile(files, 90); n >= maxFile {
			found = append(found, fmt.Sprintf("the 90th percentile of file lengths (tests: %v) is %d lines, want less than %d", test, n, maxFile))
		}
		if n := percentile(functions, 95); n >= maxFunction {
			found = append(found, fmt.Sprintf("the 95th percentile of function lengths (tests: %v) is %d lines, want less than %d", test, n, maxFunction))
		}
	}
	return found
}

func percentile(values []int, p int) int {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)*p/100, len(values)-1)]
}

// testName is a test as the documents name it.
var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")

// absentTests finds tests that a document names and that do not exist.
func absentTests(tr *tree, name, text string) []string {
	exists := map[string]bool{}
	for _, s := range tr.files {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test {
				exists[f.Name.Name] = true
			}
		}
	}
	var found []string
	for _, m := range testName.FindAllStringSubmatch(text, -1) {
		if !exists[m[1]] {
			found = append(found, fmt.Sprintf("%s: names %s, which does not exist", name, m[1]))
		}
	}
	return found
}

func TestDocumentsNameTestsThatExist(t *testing.T) {
	tr := loadTree(t, os.DirFS("."))
	names, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range absentTests(tr, name, string(text)) {
			t.Error(f)
		}
	}
	bad := badTree(t, map[string]string{"sdk/a_test.go": "package sdk\nfunc TestA() {}"})
	if found := absentTests(bad, "x.md", "`TestA` and `TestB`"); len(found) != 1 || !strings.Contains(found[0], "TestB") {
		t.Errorf("found %q, want TestB only", found)
	}
}

var docRules = map[string]rule{"packages": undocumentedPackages, "symbols": undocumentedSymbols, "lengths": tooLong}

func TestDocs(t *testing.T) {
	tr := loadTree(t, os.DirFS("."))
	for name, rule := range docRules {
		t.Run(name, func(t *testing.T) {
			for _, f := range rule(tr) {
				t.Error(f)
			}
		})
	}
}

func TestDocsFindsWhatIsMissing(t *testing.T) {
	long := "// Package sdk is long.\npackage sdk\n\n// F is long.\nfunc F() {\n" + strings.Repeat("\tF()\n", 400) + "}\n"
	for _, w := range []wrong{
		{name: "package", rule: undocumentedPackages, path: "sdk/a.go", text: "package sdk", want: "sdk: the package"},
		{name: "package documented elsewhere", rule: undocumentedPackages, path: "sdk/a.go", text: "package sdk",
			other: map[string]string{"sdk/doc.go": "// Package sdk acts.\npackage sdk"}},
		{name: "documented only in a test", rule: undocumentedPackages, path: "sdk/a.go", text: "package sdk",
			other: map[string]string{"sdk/a_test.go": "// Package sdk acts.\npackage sdk"}, want: "sdk: the package"},
		{name: "function", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\nfunc F() {}", want: "exported F"},
		{name: "method", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\nfunc (t *T[A, B]) F() {}", want: "exported F"},
		{name: "method of a hidden type", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\nfunc (t *t) F() {}"},
		{name: "type", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\ntype T int", want: "exported T"},
		{name: "type in a group", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\n// Two.\ntype (\nT int\n)", want: "exported T"},
		{name: "constants", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\nconst (\nA = 1\n)", want: "exported A"},
		{name: "constants of a group", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\n// Some.\nconst (\nA = 1\n)"},
		{name: "constant at the line's end", rule: undocumentedSymbols, path: "sdk/a.go", text: "package sdk\nconst (\nA = 1 // one\n)"},
		{name: "long file", rule: tooLong, path: "sdk/a.go", text: long, want: "file lengths"},
		{name: "long function", rule: tooLong, path: "sdk/a.go", text: long, want: "function lengths"},
	} {
		t.Run(w.name, w.check)
	}
}
