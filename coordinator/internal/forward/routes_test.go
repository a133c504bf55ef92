package forward

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// anywhere are the methods with a gid or a name that every member answers from
// the store.
var anywhere = map[string]bool{
	amendsv1.AdminService_GetTransaction_FullMethodName: true,
	amendsv1.AdminService_ListEvents_FullMethodName:     true,
	amendsv1.OperatorService_GetBulk_FullMethodName:     true,
}

// TestRoutes: every unary method that is about one transaction, one bulk or one
// member is forwarded, with the answer and the fields that it has.
func TestRoutes(t *testing.T) {
	routed := 0
	for _, file := range []protoreflect.FileDescriptor{
		amendsv1.File_amends_v1_transaction_proto, amendsv1.File_amends_v1_operator_proto,
		amendsv1.File_amends_v1_admin_proto, amendsv1.File_amends_v1_cluster_proto,
	} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
				fields := m.Input().Fields()
				about := fields.ByName("gid") != nil || fields.ByName("id") != nil || fields.ByName("name") != nil || m.Name() == "StartBulk"
				r, ok := routes[name]
				if m.IsStreamingServer() || anywhere[name] {
					about = false
				}
				if ok != about {
					t.Errorf("%s is about one of them: %t; is forwarded: %t", name, about, ok)
				}
				if !ok {
					continue
				}
				routed++
				if got := r.answer().ProtoReflect().Descriptor().FullName(); got != m.Output().FullName() {
					t.Errorf("%s is answered by %s, want %s", name, got, m.Output().FullName())
				}
				checkFields(t, name, m.Input())
			}
		}
	}
	if routed != len(routes) {
		t.Errorf("%d methods of %d routes are there", routed, len(routes))
	}
}

// checkFields sees that about and complete find what they look for.
func checkFields(t *testing.T, name string, input protoreflect.MessageDescriptor) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(input.FullName())
	if err != nil {
		t.Fatal(err)
	}
	f := New(nobody{}, Config{})
	req := kind.New().Interface()
	if err := routes[name].complete(f, "ns", req); err != nil {
		t.Fatal(err)
	}
	id := input.Fields().ByName("request_id")
	if strings.Contains(name, "OperatorService") && id != nil && req.ProtoReflect().Get(id).String() == "" {
		t.Errorf("%s is repeated without a request_id", name)
	}
	for _, field := range []protoreflect.Name{"gid", "id", "name"} {
		if fd := input.Fields().ByName(field); fd != nil && fd.Kind() == protoreflect.StringKind {
			req.ProtoReflect().Set(fd, protoreflect.ValueOfString("x"))
		}
	}
	if !routes[name].about("ns", req).known() {
		t.Errorf("%s: %v belongs to nobody", name, dynamicpb.NewMessage(input).Descriptor().FullName())
	}
}
