//go:build !linux

package process

import "syscall"

// dieWithParent only keeps Ctrl-C away: where there is no such signal, children
// outlive a parent that is killed with SIGKILL, and have to be ended by hand.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
