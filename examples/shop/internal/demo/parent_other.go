//go:build !linux

package demo

import "syscall"

// dieWithParent does nothing here: if the demo itself is killed with SIGKILL,
// the coordinator goes on and has to be ended by hand.
func dieWithParent() *syscall.SysProcAttr { return nil }
