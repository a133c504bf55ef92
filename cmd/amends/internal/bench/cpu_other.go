//go:build !unix

package bench

import "time"

// cpuTime is not known here: costs show no CPU time.
func cpuTime() (time.Duration, error) { return 0, nil }
