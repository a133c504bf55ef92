package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// owned is a server that a test has to itself, written down so that it can be
// ended when the test is killed, and cannot do it.
type owned struct {
	Process *Process `json:"process"`
	// Owner is the process that runs the test, Born when that began.
	Owner int    `json:"owner"`
	Born  string `json:"born"`
}

func ownFolder(root string) string { return filepath.Join(root, Folder, "own") }

// Own is Start for a server that belongs to this program and lives no longer:
// it is written down in the work tree, for Sweep.
func (p *Process) Own(ctx context.Context, root string) error {
	if p.Alive() {
		return nil
	}
	if err := p.launch(); err != nil {
		return err
	}
	text, err := json.Marshal(owned{Process: p, Owner: os.Getpid(), Born: born(os.Getpid())})
	if err == nil {
		err = os.MkdirAll(ownFolder(root), 0o700)
	}
	if err == nil {
		err = os.WriteFile(ownFile(root, p), text, 0o600)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("services: %w", err), p.Kill())
	}
	return p.await(ctx)
}

func ownFile(root string, p *Process) string {
	return filepath.Join(ownFolder(root), filepath.Base(p.Dir)+".json")
}

// Disown ends and removes a server of Own's.
func Disown(root string, p *Process) error {
	err := errors.Join(p.Kill(), p.Remove())
	if err == nil {
		err = os.Remove(ownFile(root, p))
	}
	if errors.Is(err, fs.ErrNotExist) { // it was never started
		return nil
	}
	return err
}

// Forget leaves the data of a server of Own's, which has ended, to people: Sweep
// will not remove it.
func Forget(root string, p *Process) error {
	if p.Alive() {
		return fmt.Errorf("services: %s: process %d runs: stop it first", p.Service, p.PID)
	}
	if err := os.Remove(ownFile(root, p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("services: %w", err)
	}
	return nil
}

// Sweep ends and removes the servers of tests that have ended without doing so:
// killed, timed out, panicked. It answers with their number.
func Sweep(root string) (int, error) {
	files, err := filepath.Glob(filepath.Join(ownFolder(root), "*.json"))
	if err != nil {
		return 0, fmt.Errorf("services: %w", err)
	}
	swept := 0
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) { // its test has just removed it
			continue
		}
		var o owned
		if err == nil {
			err = json.Unmarshal(text, &o)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("services: %s: %w", file, err))
			continue
		}
		if o.Process == nil || (&Process{PID: o.Owner, Born: o.Born}).Alive() {
			continue
		}
		swept++
		errs = append(errs, Disown(root, o.Process))
	}
	return swept, errors.Join(errs...)
}
