package main

import (
	"bytes"
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

func TestEmbedded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	var out bytes.Buffer
	for range 3 {
		if err := run(ctx, &out, dir); err != nil {
			t.Fatal(err)
		}
	}
	const want = `note-1: started, and leaving
note-1: committed, though the run that started it had left
note-2: started, and leaving
note-2: committed, though the run that started it had left
note-3: started, and leaving
`
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(dir, "notes.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var sent, most int
	if err := db.QueryRow(`SELECT sum(sent), max(sent) FROM note`).Scan(&sent, &most); err != nil {
		t.Fatal(err)
	}
	if sent != 2 || most != 1 {
		t.Errorf("%d notes sent, one of them %d times; want 2, each once", sent, most)
	}
}
