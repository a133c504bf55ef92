package services

import (
	"os"
	"slices"
	"testing"
)

func TestClassesAreUsedWhenTheyAreThere(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if got := classArgs(); got != nil {
		t.Errorf("without the file: %q", got)
	}
	dir, err := kafkaCache()
	if err != nil {
		t.Fatal(err)
	}
	file, err := kafkaClasses()
	if err != nil || file == dir {
		t.Fatal(file, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := classArgs(); !slices.Contains(got, "-XX:SharedArchiveFile="+file) {
		t.Errorf("with the file: %q", got)
	}
}
