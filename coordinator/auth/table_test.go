package auth

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// wanted is the table of who may call what, as people would write it: v(iewer),
// o(perator), b(reak-glass), s(ervice); * is without credentials.
const wanted = `
/amends.v1.TransactionService/StartSaga                              s
/amends.v1.TransactionService/BeginTcc                               s
/amends.v1.TransactionService/TryBranch                              s
/amends.v1.TransactionService/CommitTcc                              s
/amends.v1.TransactionService/AbortTransaction                       s
/amends.v1.TransactionService/WaitTransaction                        s
/amends.v1.TransactionService/FindEnded                              s
/amends.v1.TransactionService/Converse                               s
/amends.v1.ParticipantService/Attend                                 s
/amends.v1.AdminService/GetTransaction                               vob
/amends.v1.AdminService/ListTransactions                             vob
/amends.v1.AdminService/CountTransactions                            vob
/amends.v1.AdminService/ListEvents                                   vob
/amends.v1.AdminService/WatchTransaction                             vob
/amends.v1.ClusterService/GetOverview                                vob
/amends.v1.ClusterService/GetCluster                                 vob
/amends.v1.ClusterService/ListMembers                                vobs
/amends.v1.ClusterService/DrainMember                                ob
/amends.v1.ClusterService/UndrainMember                              ob
/amends.v1.ClusterService/ListParticipants                           vob
/amends.v1.ClusterService/WhoAmI                                     vobs
/amends.v1.OperatorService/RetryNow                                  ob
/amends.v1.OperatorService/Abort                                     ob
/amends.v1.OperatorService/Pause                                     ob
/amends.v1.OperatorService/Resume                                    ob
/amends.v1.OperatorService/SkipStep                                  ob
/amends.v1.OperatorService/CompleteStep                              ob
/amends.v1.OperatorService/FailStep                                  ob
/amends.v1.OperatorService/Abandon                                   b
/amends.v1.OperatorService/StartBulk                                 ob
/amends.v1.OperatorService/GetBulk                                   vob
/amends.v1.OperatorService/ListBulks                                 vob
/amends.v1.OperatorService/CancelBulk                                ob
/amends.v1.OutboxService/GetOutbox                                   vob
/amends.v1.OutboxService/ListMessages                                vob
/amends.v1.OutboxService/ListDeadLetters                             vob
/amends.v1.OutboxService/GetDeadLetter                               vob
/amends.v1.OutboxService/ListBlockedKeys                             vob
/amends.v1.OutboxService/ListOutboxActs                              vob
/amends.v1.OutboxService/ReplayDeadLetters                           ob
/amends.v1.OutboxService/DiscardDeadLetters                          ob
/amends.v1.OutboxService/SkipMessage                                 ob
/amends.v1.OutboxService/ParkKey                                     ob
/grpc.health.v1.Health/Check                                         *vobs
/grpc.health.v1.Health/List                                          vobs
/grpc.health.v1.Health/Watch                                         vobs
/grpc.reflection.v1.ServerReflection/ServerReflectionInfo            vob
/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo       vob
`

// letters are the roles of wanted.
var letters = map[string]amendsv1.Role{
	"v": amendsv1.Role_ROLE_VIEWER, "o": amendsv1.Role_ROLE_OPERATOR,
	"b": amendsv1.Role_ROLE_BREAK_GLASS, "s": amendsv1.Role_ROLE_SERVICE,
}

func wantedTable() map[string]string {
	table := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(wanted), "\n") {
		method, who, _ := strings.Cut(line, " ")
		table[method] = strings.TrimSpace(who)
	}
	return table
}

// served are the methods of every service that is registered with s.
func served(s *services) map[string]grpc.MethodInfo {
	all := map[string]grpc.MethodInfo{}
	for name, service := range s.srv.GetServiceInfo() {
		for _, m := range service.Methods {
			all["/"+name+"/"+m.Name] = m
		}
	}
	return all
}

// defined are the methods of every service in the .proto files of amends.v1,
// whoever serves them.
func defined() []string {
	var all []string
	protoregistry.GlobalFiles.RangeFilesByPackage("amends.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				all = append(all, fmt.Sprintf("/%s/%s", service.FullName(), service.Methods().Get(j).Name()))
			}
		}
		return true
	})
	return all
}

// TestNothingUnlisted: the rules, the test's own table, and what is served and
// defined are the same methods.
func TestNothingUnlisted(t *testing.T) {
	want := slices.Sorted(maps.Keys(wantedTable()))
	if got := slices.Sorted(maps.Keys(rules)); !slices.Equal(got, want) {
		t.Errorf("the rules list\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := slices.Sorted(maps.Keys(served(serving(t, Open())))); !slices.Equal(got, want) {
		t.Errorf("served are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	methods := defined()
	if len(methods) < 38 {
		t.Fatalf("only %d methods are defined in amends.v1", len(methods))
	}
	for _, method := range methods {
		if _, ok := rules[method]; !ok {
			t.Errorf("%s is defined and in no rule", method)
		}
	}
}

// call calls any method with an empty request, or req.
func call(ctx context.Context, conn *grpc.ClientConn, method string, m grpc.MethodInfo, req proto.Message) error {
	if !m.IsClientStream && !m.IsServerStream {
		return conn.Invoke(ctx, method, req, &emptypb.Empty{})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsClientStream, ServerStreams: m.IsServerStream}, method)
	if err != nil {
		return err
	}
	if !m.IsClientStream || strings.HasSuffix(method, "/Attend") {
		_ = stream.SendMsg(req) // an error shows at the end
	}
	_ = stream.CloseSend() // as above
	return stream.RecvMsg(&emptypb.Empty{})
}

// entered tells whether a call came through to a service, which does nothing.
func entered(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return false
	}
	return true
}

// TestTable calls every method with every role, in its namespace and in another,
// with a role in every namespace, and without credentials.
func TestTable(t *testing.T) {
	who := &people{ids: map[string]*Identity{"nothing": {Subject: "nothing"}}}
	for letter, role := range letters {
		who.ids[letter] = &Identity{Subject: letter, Grants: []Grant{{Namespace: "shop", Role: role}}, Services: []string{All}}
		who.ids["all-"+letter] = &Identity{Subject: "all-" + letter, Grants: []Grant{{Namespace: All, Role: role}}, Services: []string{All}}
	}
	s := serving(t, newGuard(t, who, &Config{Rate: -1}))
	methods := served(s)
	cells := 0
	for method, roles := range wantedTable() {
		public := strings.Contains(roles, "*")
		expect := func(token, namespace string, in bool, otherwise codes.Code) {
			t.Helper()
			cells++
			err := call(as(t.Context(), token, namespace), s.conn, method, methods[method], &emptypb.Empty{})
			switch {
			case in && !entered(err):
				t.Errorf("%s as %q in %q: %v, want it to be let in", method, token, namespace, err)
			case !in && status.Code(err) != otherwise:
				t.Errorf("%s as %q in %q: %v, want %v", method, token, namespace, err, otherwise)
			}
		}
		expect("", "", public, codes.Unauthenticated)
		expect("", "shop", public, codes.Unauthenticated)
		expect("stranger", "shop", public, codes.Unauthenticated)
		expect("nothing", "", public, codes.PermissionDenied)
		for letter := range letters {
			in := strings.Contains(roles, letter)
			expect(letter, "", in, codes.PermissionDenied) // shop is its only one
			expect(letter, "shop", in, codes.PermissionDenied)
			expect(letter, "other", public, codes.PermissionDenied)
			expect("all-"+letter, "", in, codes.PermissionDenied)
			expect("all-"+letter, "other", in, codes.PermissionDenied)
		}
	}
	t.Logf("%d cells", cells)
}

// TestUnlisted: a service that nobody wrote into the table is nobody's.
func TestUnlisted(t *testing.T) {
	for name, g := range map[string]*Guard{
		"open": Open(), "in process": InProcess(),
		"asking": newGuard(t, &people{ids: map[string]*Identity{"root": everybody("root")}}, nil),
	} {
		info := &grpc.UnaryServerInfo{FullMethod: "/amends.v1.NewService/Method"}
		_, err := g.Unary(t.Context(), nil, info, func(context.Context, any) (any, error) {
			t.Errorf("%s: called", name)
			return nil, nil
		})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want PermissionDenied", name, err)
		}
	}
}

// TestAbandonInBulk: to abandon many needs what to abandon one needs.
func TestAbandonInBulk(t *testing.T) {
	who := &people{ids: map[string]*Identity{}}
	for letter, role := range letters {
		who.ids[letter] = &Identity{Subject: letter, Grants: []Grant{{Role: role}}}
	}
	// Break-glass here is not break-glass there.
	who.ids["both"] = &Identity{Subject: "both", Grants: []Grant{
		{Namespace: "shop", Role: amendsv1.Role_ROLE_OPERATOR}, {Namespace: "test", Role: amendsv1.Role_ROLE_BREAK_GLASS}}}
	s := serving(t, newGuard(t, who, nil))
	for number := range amendsv1.Verb_name {
		for _, token := range []string{"v", "o", "b", "s", "both"} {
			verb := amendsv1.Verb(number)
			abandon := verb == amendsv1.Verb_VERB_ABANDON
			namespace := ""
			if token == "both" {
				namespace = "shop"
			}
			_, err := amendsv1.NewOperatorServiceClient(s.conn).StartBulk(as(t.Context(), token, namespace),
				&amendsv1.StartBulkRequest{Verb: verb})
			if want := token == "b" || (token == "o" || token == "both") && !abandon; entered(err) != want {
				t.Errorf("%v as %q: %v, want it to be let in: %v", verb, token, err, want)
			}
		}
	}
}

// TestHiddenNamespaces: the answer for a namespace of others is the answer for
// one that there is not, but for its name.
func TestHiddenNamespaces(t *testing.T) {
	who := &people{ids: map[string]*Identity{
		"ann": {Subject: "ann", Grants: []Grant{{Namespace: "shop", Role: amendsv1.Role_ROLE_OPERATOR}}},
		"bob": {Subject: "bob", Grants: []Grant{{Namespace: "bank", Role: amendsv1.Role_ROLE_OPERATOR}}},
	}}
	s := serving(t, newGuard(t, who, nil))
	ask := func(namespace string) string {
		_, err := amendsv1.NewAdminServiceClient(s.conn).GetTransaction(as(t.Context(), "ann", namespace), &amendsv1.GetTransactionRequest{})
		return strings.ReplaceAll(fmt.Sprint(err), namespace, "NS")
	}
	theirs, none := ask("bank"), ask("absent")
	if theirs != none || !strings.Contains(theirs, "PermissionDenied") {
		t.Errorf("of others: %s\nof nobody: %s", theirs, none)
	}
}

func TestHealthWithoutCredentials(t *testing.T) {
	s := serving(t, newGuard(t, &people{}, &Config{Rate: 1}))
	for range 5 { // and nobody's rate counts
		if _, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}
