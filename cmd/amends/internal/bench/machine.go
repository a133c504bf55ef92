package bench

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Machine is what a figure has to be read with.
type Machine struct {
	CPU        string `json:"cpu,omitempty"`
	Cores      int    `json:"cores"`
	Memory     string `json:"memory,omitempty"`
	Kernel     string `json:"kernel,omitempty"`
	FileSystem string `json:"file_system,omitempty"`
	Go         string `json:"go"`
	OS         string `json:"os"`
}

// ThisMachine says what it can find out; on other systems than Linux that is
// little.
func ThisMachine(dir string) Machine {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // absent: not said
	return Machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.GOMAXPROCS(0),
		Memory: field("/proc/meminfo", "MemTotal"), Kernel: strings.TrimSpace(string(kernel)),
		FileSystem: fileSystem(dir), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

// field is the value of the first line "name : value" of a file; empty: there is none.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close() // was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystem is the kind of the mount that a directory is on; empty: unknown.
func fileSystem(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return ""
	}
	var kind, place string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(place) {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			place, kind = f[1], f[2]
		}
	}
	return kind
}
