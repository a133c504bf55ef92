package main_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestEveryCommandIsInThePackageComment compares what --help lists with what
// people read first.
func TestEveryCommandIsInThePackageComment(t *testing.T) {
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile(`(?m)^  ([a-z]+) +\S`).FindAllStringSubmatch(ok(t, "--help"), -1)
	if len(listed) < 10 {
		t.Fatalf("only %d commands found in --help", len(listed))
	}
	for _, m := range listed {
		own := m[1] != "amends" && m[1] != "completion" && m[1] != "help" // of Cobra
		if own && !strings.Contains(string(text), "//\tamends "+m[1]+" ") {
			t.Errorf("the package comment lacks amends %s", m[1])
		}
	}
}
