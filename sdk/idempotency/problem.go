package idempotency

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// problem is an answer of the middleware's own, by RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	retry bool // the same request may succeed soon
}

// problemTypes begins the types: identifiers, not addresses.
const problemTypes = "tag:amends.dev,2026:idempotency/"

func newProblem(status int, kind, title, detail string) *problem {
	return &problem{Type: problemTypes + kind, Title: title, Status: status, Detail: detail}
}

func missingKey() *problem {
	return newProblem(http.StatusBadRequest, "key-missing", "Idempotency-Key is missing",
		"this operation needs the header Idempotency-Key: send a new random string for each new request, "+
			"and the same one when the request is sent again")
}

func illegalKey(err error) *problem {
	return newProblem(http.StatusBadRequest, "key-illegal", "Idempotency-Key is illegal", err.Error())
}

func unknownCaller() *problem {
	return newProblem(http.StatusForbidden, "caller-unknown", "The caller is not known",
		"a key belongs to its caller, and this request does not say who that is")
}

func longRequest(limit int) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, "request-too-long", "The request is too long",
		fmt.Sprintf("the body has more than %d bytes", limit))
}

func unreadable() *problem {
	return newProblem(http.StatusBadRequest, "request-unreadable", "The request cannot be read",
		"its body ended early")
}

func stillRunning() *problem {
	p := newProblem(http.StatusConflict, "running", "A request is outstanding for this Idempotency-Key",
		"a request with this key is being worked on: ask again with the same key")
	p.retry = true
	return p
}

func otherRequest() *problem {
	return newProblem(http.StatusUnprocessableEntity, "key-used", "Idempotency-Key is already used",
		"this key was used for another request: method, path, query and body must be the same when a request is sent "+
			"again, and a new request needs a new key")
}

func unavailable() *problem {
	p := newProblem(http.StatusServiceUnavailable, "unavailable", "The outcome is not known",
		"the record of this key cannot be read or written: ask again with the same key")
	p.retry = true
	return p
}

func unrecordable() *problem {
	return newProblem(http.StatusInternalServerError, "answer-unrecordable", "The answer cannot be recorded",
		"the operation's answer is too long, or none that can be recorded")
}

// answer is the problem as a handler would have answered.
func (p *problem) answer(docs string) answer {
	body, _ := json.Marshal(p) //nolint:errchkjson // strings and a number
	header := http.Header{"Content-Type": {"application/problem+json"}}
	if p.retry {
		header.Set("Retry-After", "1")
	}
	if docs != "" {
		header.Set("Link", "<"+docs+`>; rel="describedby"`)
	}
	return answer{status: p.Status, header: header, body: body}
}
