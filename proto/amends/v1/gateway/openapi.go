// Package amendsv1 is the HTTP/JSON half of the API: handlers that speak gRPC to
// a coordinator, made from http.yaml, and the OpenAPI description of them. Apart
// from it, importing the messages does not link an HTTP server.
package amendsv1

import _ "embed"

// OpenAPI describes the requests, as OpenAPI 2.0 in JSON. Do not change it.
//
//go:embed amends.swagger.json
var OpenAPI []byte
