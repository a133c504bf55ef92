package amendsv1

import (
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// EncodeStatus is what an Answer says of an error: the google.rpc.Status that
// gRPC would make of it at the end of an RPC.
func EncodeStatus(err error) []byte {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	raw, bad := proto.Marshal(st.Proto())
	if bad != nil { // a text that is no UTF-8
		raw, _ = proto.Marshal(status.New(st.Code(), ValidText(st.Message())).Proto()) // now it is
	}
	return raw
}

// DecodeStatus is the error that an RPC would have ended with where an Answer
// has this status.
func DecodeStatus(raw []byte) error {
	st := new(spb.Status)
	if err := proto.Unmarshal(raw, st); err != nil {
		return status.Errorf(codes.Internal, "amends: the status of an answer cannot be read: %v", err)
	}
	if codes.Code(st.GetCode()) == codes.OK { //nolint:gosec // any number is a code
		return status.Error(codes.Internal, "amends: an answer failed with the status OK")
	}
	return status.FromProto(st).Err()
}
