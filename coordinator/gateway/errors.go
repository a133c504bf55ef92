package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	rpc "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// problem is an error as JSON. Programs tell errors apart by reason.
type problem struct {
	Code     codes.Code        `json:"code"` // gRPC's number
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// problemOf turns an error into JSON and the HTTP status that goes with it.
func problemOf(err error) (problem, int) {
	if own := (*refusal)(nil); errors.As(err, &own) {
		return problem{Code: codeOf(own.status), Reason: own.err.Reason, Message: own.err.Message}, own.status
	}
	code := status.Code(err)
	p := problem{Code: code, Reason: rpc.Code(code).String(), Message: plain(status.Convert(err).Message())}
	if e := (*amendsv1.Error)(nil); errors.As(amendsv1.FromError(err), &e) && e.Reason != "" {
		p.Reason, p.Message, p.Metadata = e.Reason, e.Message, e.Metadata
	}
	return p, runtime.HTTPStatusFromCode(code)
}

// codeOf is the gRPC code of a request that no call was made for.
func codeOf(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusMethodNotAllowed:
		return codes.Unimplemented
	}
	return codes.InvalidArgument
}

// plain makes protobuf's words about a body fit to be shown: they come with
// spaces that are none, so that nobody compares them.
func plain(message string) string {
	message = strings.ReplaceAll(message, "\u00a0", " ")
	if rest, ok := strings.CutPrefix(message, "proto: "); ok {
		return "request body: " + rest
	}
	return message
}

func writeError(w http.ResponseWriter, err error) {
	p, code := problemOf(err)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if e := (*amendsv1.Error)(nil); errors.As(amendsv1.FromError(err), &e) && e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(e.RetryAfter.Seconds())), 10))
	}
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	body, err := json.Marshal(p)
	if err != nil { // strings and a number
		http.Error(w, p.Reason, http.StatusInternalServerError)
		return
	}
	w.WriteHeader(code)
	write(w, body)
}

// write drops the error: a client that went away is not told so.
func write(w http.ResponseWriter, body []byte) {
	_, _ = w.Write(body)
}

func fail(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	writeError(w, err)
}

func noRoute(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	if code == http.StatusMethodNotAllowed {
		writeError(w, refuse(code, "METHOD_NOT_ALLOWED", "%s is not a method of this path", r.Method))
		return
	}
	writeError(w, refuse(code, "NO_SUCH_PATH", "nothing is at this path: see /v1/openapi.json"))
}
