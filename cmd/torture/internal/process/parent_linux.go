package process

import "syscall"

// dieWithParent ends a child when its parent is gone, however that came about.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
