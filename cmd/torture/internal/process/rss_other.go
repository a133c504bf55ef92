//go:build !linux

package process

import "time"

func peakRSS(int) int64 { return 0 }

func cpuTime(int) time.Duration { return 0 }
