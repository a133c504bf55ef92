// Package memstore keeps a coordinator's transactions in memory: for tests,
// and for trying things out. It keeps the whole contract of package store,
// leases included, and loses everything with the process.
//
// It starts no goroutine and uses nothing but sync and time, so it works
// inside a testing/synctest bubble, where its leases run on virtual time.
package memstore
