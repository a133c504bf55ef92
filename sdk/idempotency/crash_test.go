package idempotency

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

const crashVariable = "AMENDS_TEST_IDEMPOTENCY_CRASH" // dialect, mode and data source of a child that is to be killed

// TestCrash kills a process between the effect and the record. In a transaction
// there is one effect after the client has asked again; without, there are two.
func TestCrash(t *testing.T) {
	if crash := os.Getenv(crashVariable); crash != "" {
		crashChild(t, crash)
		return
	}
	modes(t, func(t *testing.T, w *world, cfg Config) {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrash$")
		child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %v %s", crashVariable, w.d.Name(), cfg.Transactional, w.dsn))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); ; {
			if !lines.Scan() {
				t.Fatal("the child ended by itself")
			}
			if lines.Text() == "effect" {
				break
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // it was killed
		h := w.middleware(cfg).Wrap(http.HandlerFunc(w.effect))
		wantStatus(t, "before the lease ends", post(h, "k", "x"), http.StatusConflict)
		w.exec(`UPDATE amends_idempotency SET lease_until = 1`)
		wantStatus(t, "after it", post(h, "k", "x"), http.StatusCreated)
		if cfg.Transactional {
			w.wantEffects(1)
		} else {
			w.wantEffects(2)
		}
	})
}

func crashChild(t *testing.T, crash string) {
	parts := strings.SplitN(crash, " ", 3)
	d := outbox.SQLite
	if parts[0] == outbox.MySQL.Name() {
		d = outbox.MySQL
	}
	w := openWorld(t, d, parts[2])
	post(w.middleware(Config{Transactional: parts[1] == "true"}).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.effect(rw, r)
		fmt.Println("\neffect")
		time.Sleep(time.Hour) // until it is killed
	})), "k", "x")
}
