package amendsv1_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// sentinels is the table of reasons. TestTableIsWhole compares it with the
// source, so that none is forgotten.
var sentinels = map[string]struct {
	err    *amendsv1.Error
	reason string
	code   codes.Code
}{
	"ErrNotFound":          {amendsv1.ErrNotFound, "NOT_FOUND", codes.NotFound},
	"ErrGIDConflict":       {amendsv1.ErrGIDConflict, "GID_CONFLICT", codes.AlreadyExists},
	"ErrBranchConflict":    {amendsv1.ErrBranchConflict, "BRANCH_CONFLICT", codes.AlreadyExists},
	"ErrInvalidGID":        {amendsv1.ErrInvalidGID, "INVALID_GID", codes.InvalidArgument},
	"ErrInvalidDefinition": {amendsv1.ErrInvalidDefinition, "INVALID_DEFINITION", codes.InvalidArgument},
	"ErrInvalidArgument":   {amendsv1.ErrInvalidArgument, "INVALID_ARGUMENT", codes.InvalidArgument},
	"ErrUnknownAction":     {amendsv1.ErrUnknownAction, "UNKNOWN_ACTION", codes.InvalidArgument},
	"ErrTooLarge":          {amendsv1.ErrTooLarge, "PAYLOAD_TOO_LARGE", codes.InvalidArgument},
	"ErrPageToken":         {amendsv1.ErrPageToken, "INVALID_PAGE_TOKEN", codes.InvalidArgument},
	"ErrFilter":            {amendsv1.ErrFilter, "INVALID_FILTER", codes.InvalidArgument},
	"ErrOverloaded":        {amendsv1.ErrOverloaded, "OVERLOADED", codes.ResourceExhausted},
	"ErrDecided":           {amendsv1.ErrDecided, "ALREADY_DECIDED", codes.FailedPrecondition},
	"ErrDeadlinePassed":    {amendsv1.ErrDeadlinePassed, "DEADLINE_PASSED", codes.FailedPrecondition},
	"ErrWrongKind":         {amendsv1.ErrWrongKind, "WRONG_KIND", codes.FailedPrecondition},
	"ErrTryPending":        {amendsv1.ErrTryPending, "TRY_PENDING", codes.FailedPrecondition},
	"ErrRefused":           {amendsv1.ErrRefused, "REFUSED", codes.FailedPrecondition},
	"ErrRolledBack":        {amendsv1.ErrRolledBack, "ROLLED_BACK", codes.FailedPrecondition},
	"ErrProtocolVersion":   {amendsv1.ErrProtocolVersion, "PROTOCOL_VERSION", codes.FailedPrecondition},
	"ErrIllegalVerb":       {amendsv1.ErrIllegalVerb, "ILLEGAL_VERB", codes.FailedPrecondition},
	"ErrETag":              {amendsv1.ErrETag, "ETAG_MISMATCH", codes.Aborted},
	"ErrRequestConflict":   {amendsv1.ErrRequestConflict, "REQUEST_CONFLICT", codes.AlreadyExists},
	"ErrUnauthenticated":   {amendsv1.ErrUnauthenticated, "UNAUTHENTICATED", codes.Unauthenticated},
	"ErrPermission":        {amendsv1.ErrPermission, "PERMISSION_DENIED", codes.PermissionDenied},
	"ErrNotOwner":          {amendsv1.ErrNotOwner, "NOT_OWNER", codes.Unavailable},
	"ErrUnavailable":       {amendsv1.ErrUnavailable, "UNAVAILABLE", codes.Unavailable},
	"ErrInternal":          {amendsv1.ErrInternal, "INTERNAL", codes.Internal},
}

func TestTableIsWhole(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			for _, name := range spec.(*ast.ValueSpec).Names {
				declared = append(declared, name.Name)
			}
		}
	}
	slices.Sort(declared)
	if tested := slices.Sorted(maps.Keys(sentinels)); !slices.Equal(declared, tested) {
		t.Errorf("errors.go declares %v\nthis test knows %v", declared, tested)
	}
	reasons := map[string]string{}
	for name, s := range sentinels {
		if other := reasons[s.reason]; other != "" {
			t.Errorf("%s and %s have the same reason %s", name, other, s.reason)
		}
		reasons[s.reason] = name
	}
}

// failing answers one RPC with an error of the test's choice.
type failing struct {
	amendsv1.UnimplementedAdminServiceServer
	answer func(ctx context.Context) error
}

func (f *failing) GetTransaction(ctx context.Context, _ *amendsv1.GetTransactionRequest) (*amendsv1.GetTransactionResponse, error) {
	return nil, f.answer(ctx)
}

// serve returns a client of a real gRPC server that answers with answer.
func serve(t *testing.T, answer func(ctx context.Context) error) amendsv1.AdminServiceClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	amendsv1.RegisterAdminServiceServer(srv, &failing{answer: answer})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return amendsv1.NewAdminServiceClient(conn)
}

// cross sends err over the wire and returns what the client makes of it.
func cross(t *testing.T, err error) error {
	t.Helper()
	client := serve(t, func(context.Context) error { return err })
	_, got := client.GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{})
	return amendsv1.FromError(got)
}

func TestEverySentinelCrosses(t *testing.T) {
	for name, s := range sentinels {
		t.Run(name, func(t *testing.T) {
			sent := s.err.With("gid %q: step %d", "a\nb", 3).
				WithMetadata("branch", "debit").WithMetadata("limit", "7").WithRetryAfter(1500 * time.Millisecond)
			for side, err := range map[string]error{
				"server": sent, "client": cross(t, sent), "client, wrapped by the server": cross(t, fmt.Errorf("api: %w", sent)),
			} {
				check(t, side, err, s.err, s.code)
				var e *amendsv1.Error
				if !errors.As(err, &e) || e.Reason != s.reason || e.RetryAfter != 1500*time.Millisecond ||
					e.Metadata["branch"] != "debit" || e.Metadata["limit"] != "7" || !strings.HasSuffix(e.Message, "gid \"a\\nb\": step 3") {
					t.Errorf("%s: %+v", side, e)
				}
			}
		})
	}
}

// check says that err is want by errors.Is and no other, and has the code.
func check(t *testing.T, side string, err error, want *amendsv1.Error, code codes.Code) {
	t.Helper()
	for name, other := range sentinels {
		if is := errors.Is(err, other.err); is != (other.err == want) {
			t.Errorf("%s: errors.Is(err, %s) = %v", side, name, is)
		}
	}
	if got := status.Code(err); got != code {
		t.Errorf("%s: code %v, want %v", side, got, code)
	}
}

func TestSentinelsAreNotChanged(t *testing.T) {
	with := amendsv1.ErrRefused.WithMetadata("branch", "a")
	more := with.WithMetadata("limit", "1").WithRetryAfter(time.Second).With("other")
	if amendsv1.ErrRefused.Metadata != nil || amendsv1.ErrRefused.RetryAfter != 0 || amendsv1.ErrRefused.Message == "other" {
		t.Errorf("the sentinel changed: %+v", amendsv1.ErrRefused)
	}
	if len(with.Metadata) != 1 || len(more.Metadata) != 2 {
		t.Errorf("%v, %v", with.Metadata, more.Metadata)
	}
}

func TestBareSentinelCrosses(t *testing.T) {
	var e *amendsv1.Error
	if err := cross(t, amendsv1.ErrOverloaded); !errors.As(err, &e) || e.RetryAfter != 0 || e.Error() != amendsv1.ErrOverloaded.Error() {
		t.Errorf("%v", err)
	}
}

func TestAnyBytesCross(t *testing.T) {
	sent := amendsv1.ErrRefused.With("no \xff money\x00 \xe2\x82").WithMetadata("bra\xc3nch", "deb\xfeit")
	got := cross(t, sent)
	var e *amendsv1.Error
	if !errors.As(got, &e) {
		t.Fatalf("%T %v", got, got)
	}
	if want := "no \\xff money\x00 \\xe2\\x82"; e.Message != want {
		t.Errorf("message %q, want %q", e.Message, want)
	}
	if e.Metadata[`bra\xc3nch`] != `deb\xfeit` {
		t.Errorf("metadata %q", e.Metadata)
	}
}

func TestLongTextsAreCutVisibly(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	got := cross(t, amendsv1.ErrRefused.With("%s", "x"+long).WithMetadata("branch", long))
	var e *amendsv1.Error
	if !errors.As(got, &e) {
		t.Fatalf("%T %.200v", got, got)
	}
	for what, text := range map[string]string{"message": e.Message, "detail": e.Metadata["branch"]} {
		if len(text) > 2200 || !strings.HasSuffix(text, "bytes more)") || !utf8.ValidString(text) {
			t.Errorf("%s: %d bytes, ends in %q", what, len(text), text[len(text)-30:])
		}
	}
}

func TestContextErrorsCross(t *testing.T) {
	started := make(chan struct{}, 2)
	client := serve(t, func(ctx context.Context) error { started <- struct{}{}; <-ctx.Done(); return ctx.Err() })
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-started; cancel() }()
		_, err := client.GetTransaction(ctx, &amendsv1.GetTransactionRequest{})
		checkContext(t, err, context.Canceled, codes.Canceled)
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := client.GetTransaction(ctx, &amendsv1.GetTransactionRequest{})
		checkContext(t, err, context.DeadlineExceeded, codes.DeadlineExceeded)
	})
}

func checkContext(t *testing.T, rpc, want error, code codes.Code) {
	t.Helper()
	err := amendsv1.FromError(rpc)
	if !errors.Is(err, want) || !errors.Is(err, rpc) || status.Code(err) != code || err.Error() != rpc.Error() {
		t.Errorf("%v (code %v), want %v", err, status.Code(err), want)
	}
	for name, s := range sentinels {
		if errors.Is(err, s.err) {
			t.Errorf("%v is %s", err, name)
		}
	}
}

func TestFromErrorLeavesOthers(t *testing.T) {
	plain := errors.New("plain")
	wrapped := fmt.Errorf("sdk: start: %w", amendsv1.ErrNotFound)
	internal := status.Error(codes.Internal, "boom")
	foreign, err := status.New(codes.NotFound, "other").WithDetails(&errdetails.ErrorInfo{Domain: "example.com", Reason: "NOT_FOUND"})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{nil, plain, wrapped, internal, foreign.Err(), context.Canceled, amendsv1.ErrRefused} {
		if got := amendsv1.FromError(err); got != err {
			t.Errorf("FromError(%v) = %v", err, got)
		}
	}
	if errors.Is(amendsv1.FromError(foreign.Err()), amendsv1.ErrNotFound) {
		t.Error("a reason of another domain was taken for ours")
	}
}

func TestFromErrorTwice(t *testing.T) {
	once := cross(t, amendsv1.ErrDecided.With("gid %q", "a"))
	if twice := amendsv1.FromError(once); twice != once {
		t.Errorf("%v became %v", once, twice)
	}
}

func TestLostConnectionIsUnavailable(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:nowhere",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody is there") }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	_, err = amendsv1.NewAdminServiceClient(conn).GetTransaction(t.Context(), &amendsv1.GetTransactionRequest{})
	got := amendsv1.FromError(err)
	check(t, "client", got, amendsv1.ErrUnavailable, codes.Unavailable)
	if !strings.Contains(got.Error(), "nobody is there") {
		t.Errorf("%v hides the cause", got)
	}
}

// A reason that this version does not know, of a newer coordinator, keeps its
// code and its details.
func TestUnknownReasonSurvives(t *testing.T) {
	st, err := status.New(codes.Aborted, "newer").WithDetails(
		&errdetails.ErrorInfo{Domain: amendsv1.ErrorDomain, Reason: "FROM_THE_FUTURE", Metadata: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	var e *amendsv1.Error
	if got := cross(t, st.Err()); !errors.As(got, &e) || e.Reason != "FROM_THE_FUTURE" || e.Metadata["k"] != "v" || status.Code(got) != codes.Aborted {
		t.Errorf("%v", got)
	}
}

func FuzzValidText(f *testing.F) {
	for _, s := range []string{"", "plain", "\xff", "a\xe2\x82b", "\ufffd", "né\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := amendsv1.ValidText(s)
		if !utf8.ValidString(got) || utf8.ValidString(s) && got != s {
			t.Errorf("ValidText(%q) = %q", s, got)
		}
	})
}
