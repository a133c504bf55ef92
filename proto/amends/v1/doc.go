// Package amendsv1 is the wire: the gRPC services of a coordinator and the
// errors that survive the way from one side to the other.
//
// The .pb.go files are generated from the .proto files beside them by
// "make generate"; errors.go is written by hand.
package amendsv1
