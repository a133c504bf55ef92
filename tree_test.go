// Package amends_test holds the rules of the whole repository: which room may
// import which, what production code may not do, what is documented, and that
// what the documentation shows is true. It reads files and never asks the go
// command what they are, because the test cache would hide a change from it.
package amends_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/amends-dev/amends"

// source is one Go file of the repository.
type source struct {
	path      string // from the root, with slashes
	dir       string // its package
	file      *ast.File
	test      bool // _test.go
	generated bool
	lines     int
}

// tree is every Go file of the repository.
type tree struct {
	fset  *token.FileSet
	files []*source
}

// loadTree parses every Go file below fsys, but not what the go command
// ignores too, nor what is built.
func loadTree(t *testing.T, fsys fs.FS) *tree {
	t.Helper()
	tr := &tree{fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if p != "." && (name[0] == '.' || name[0] == '_' || name == "testdata" || p == "bin" || isModule(fsys, p)) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(p) != ".go" {
			return nil
		}
		return tr.parse(fsys, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// isModule says whether a folder is a module of its own.
func isModule(fsys fs.FS, dir string) bool {
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

func (tr *tree) parse(fsys fs.FS, p string) error {
	text, err := fs.ReadFile(fsys, p)
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(tr.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	tr.files = append(tr.files, &source{
		path: p, dir: path.Dir(p), file: f,
		test:      strings.HasSuffix(p, "_test.go"),
		generated: ast.IsGenerated(f),
		lines:     strings.Count(string(text), "\n"),
	})
	return nil
}

// production returns the files that users compile and people wrote.
func (tr *tree) production() []*source {
	return slices.DeleteFunc(slices.Clone(tr.files), func(s *source) bool { return s.test || s.generated })
}

func (tr *tree) at(n ast.Node) string {
	p := tr.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// imports returns the paths that a file imports.
func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil { // the parser has checked it
			p = spec.Path.Value
		}
		paths = append(paths, p)
	}
	return paths
}

// inTestPackage reports whether the package is a kit for tests: "storetest".
func inTestPackage(dir string) bool { return strings.HasSuffix(path.Base(dir), "test") }

// under reports whether dir matches a pattern: a folder, or "folder/..." for
// it and all below.
func under(dir, pattern string) bool {
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == root || strings.HasPrefix(dir, root+"/")
	}
	return dir == pattern
}

// badTree is a repository of one wrong file (or more), to test the rules.
func badTree(t *testing.T, files map[string]string) *tree {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return loadTree(t, fsys)
}

// rule finds what is wrong in a tree, one line each.
type rule func(*tree) []string

// wrong is a tree that a rule must refuse, saying want.
type wrong struct {
	name  string
	rule  rule
	path  string
	text  string
	want  string // part of what it says; empty: it must find nothing
	other map[string]string
}

func (w wrong) check(t *testing.T) {
	t.Helper()
	files := map[string]string{w.path: w.text}
	maps.Copy(files, w.other)
	found := w.rule(badTree(t, files))
	switch {
	case w.want == "" && len(found) > 0:
		t.Errorf("found %q in what is right", found)
	case w.want != "" && !strings.Contains(strings.Join(found, "\n"), w.want):
		t.Errorf("found %q, want something with %q", found, w.want)
	}
}
