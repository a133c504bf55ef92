package demo

import "syscall"

// dieWithParent ends a child when its parent is gone: the coordinator is a real
// one, which does not watch its standard input.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
