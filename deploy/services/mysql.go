package services

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// NewMySQL prepares a MariaDB server with an empty data folder. Its user may
// do everything, and exists on 127.0.0.1 only; args are further ones of
// mariadbd. The error is a MissingError when MariaDB is not installed.
func NewMySQL(ctx context.Context, args ...string) (_ *Process, err error) {
	server, install, err := findMySQL()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := newDir(MySQL)
	if err != nil {
		return nil, err
	}
	defer removeOnError(dir, &err)
	data := filepath.Join(dir, "data")
	asRoot := []string{}
	if os.Geteuid() == 0 { // mariadbd wants to hear it
		asRoot = append(asRoot, "--user=root")
	}
	tmp := filepath.Join(dir, "tmp") // of its own: a server that starts deletes others' temporary tables in /tmp
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("services: mysql: %w", err)
	}
	setup := exec.CommandContext(ctx, install, append([]string{"--no-defaults", "--skip-test-db", "--datadir=" + data}, asRoot...)...)
	setup.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := setup.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("services: mariadb-install-db: %w:\n%s", err, out)
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = "tcp", loopback(port)
	cfg.User, cfg.Passwd = "amends", rand.Text()
	if err := os.WriteFile(filepath.Join(dir, "init.sql"), []byte(mysqlUser(cfg.Passwd)), 0o600); err != nil {
		return nil, fmt.Errorf("services: mysql: %w", err)
	}
	argv := append([]string{
		"--no-defaults", "--datadir=" + data, "--tmpdir=" + tmp, "--init-file=" + filepath.Join(dir, "init.sql"),
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(port), "--skip-name-resolve",
		"--socket=sock", "--pid-file=pid", // below data: a path of any length would not do
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin",
		"--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=256M", "--max-connections=400",
	}, asRoot...)
	return &Process{Service: MySQL, Addr: cfg.FormatDSN(), Dir: dir, Path: server, Args: append(argv, args...)}, nil
}

// unlocked waits until nobody holds the locks of a database's files. The kernel may
// still be at the last reads and writes of a process that is gone, and a server
// that meets such a lock does not start.
func (p *Process) unlocked(within time.Duration) error {
	if p.Service != MySQL {
		return nil
	}
	for deadline := time.Now().Add(within); ; time.Sleep(pollTime) {
		held, err := isLocked(filepath.Join(p.Dir, "data", "ibdata1"))
		switch {
		case err != nil:
			return fmt.Errorf("services: mysql: %w", err)
		case !held:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("services: mysql: the files of process %d are still locked", p.PID)
		}
	}
}

// isLocked tells whether a process holds a lock on a file, if there is one.
func isLocked(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil {
		return false, err
	}
	return lock.Type != syscall.F_UNLCK, nil
}

// findMySQL answers with the paths of the server and of the program that makes
// its data folder, which is a script and needs a third one.
func findMySQL() (server, install string, err error) {
	// The parts of Debian's mariadb-server that bring no service of the system.
	packages := []string{"mariadb-server-core", "mariadb-client-core"}
	const fix = "install MariaDB, on Debian: apt-get install --no-install-recommends mariadb-server-core mariadb-client-core"
	server, err = find(packages, fix, "mariadbd")
	if err == nil {
		install, err = find(packages, fix, "mariadb-install-db")
	}
	if err == nil {
		_, err = find(packages, fix, "my_print_defaults")
	}
	return server, install, err
}

// mysqlUser makes the user at every start; the password has letters and digits only.
func mysqlUser(password string) string {
	return "CREATE OR REPLACE USER 'amends'@'127.0.0.1' IDENTIFIED BY '" + password + "';\n" +
		"GRANT ALL PRIVILEGES ON *.* TO 'amends'@'127.0.0.1' WITH GRANT OPTION;\n"
}

// removeOnError deletes what a constructor had made before it failed.
func removeOnError(dir string, err *error) {
	if *err != nil {
		os.RemoveAll(dir) // the error counts; what remains lies in the temporary folder
	}
}
