package services

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// State is what `make services` remembers, in .amends/services.json.
type State struct {
	Services map[Service]*Entry `json:"services"`
	// Keep: they were asked for by `make services`, so that no test takes them down.
	Keep bool `json:"keep,omitempty"`
	// Project is that of Docker Compose, when it runs some of them.
	Project string `json:"project,omitempty"`
}

// Entry is one service of a State.
type Entry struct {
	// Source is "environment", "Docker Compose" or "native".
	Source string `json:"source"`
	// Addr is what clients are told; empty when the service is missing.
	Addr string `json:"addr,omitempty"`
	// Missing says why there is none, and what helps.
	Missing string `json:"missing,omitempty"`
	// Process is the server that we started, when it is native.
	Process *Process `json:"process,omitempty"`
}

// Root finds the work tree of this module around dir.
func Root(dir string) (string, error) {
	from, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := from; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && bytes.HasPrefix(text, []byte("module github.com/amends-dev/amends\n")) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("services: %s is in no work tree of Amends", from)
		}
	}
}

// Folder is where the state is kept below the root of the work tree.
const Folder = ".amends"

func stateFile(root string) string { return filepath.Join(root, Folder, "services.json") }

// Load reads the state of a work tree; without a file it is empty.
func Load(root string) (*State, error) {
	st := &State{Services: map[Service]*Entry{}}
	text, err := os.ReadFile(stateFile(root))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err == nil {
		err = json.Unmarshal(text, st)
	}
	if err != nil {
		return nil, fmt.Errorf("services: %s: %w: delete the file", stateFile(root), err)
	}
	return st, nil
}

// Save writes the state whole or not at all, for the owner's eyes: it holds a
// password. A state without services is no file.
func (st *State) Save(root string) error {
	file := stateFile(root)
	if len(st.Services) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("services: %w", err)
		}
		return nil
	}
	text, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("services: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	return nil
}
