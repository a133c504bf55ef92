//go:build !linux

package process

func peakRSS(int) int64 { return 0 }
