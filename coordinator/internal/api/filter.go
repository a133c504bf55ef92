package api

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// A filter is
//
//	filter  = [ term { "AND" term } ]
//	term    = field op literal
//	field   = word
//	op      = "=" | "!=" | "<" | "<=" | ">" | ">="
//	literal = word | quoted
//	quoted  = '"' … '"', with the escapes of Go
//
// A word is whatever holds no space, quote, parenthesis or operator. This file
// reads the grammar; query.go knows the fields.

// maxFilter is the longest filter in bytes.
const maxFilter = 4096

// term is one comparison.
type term struct {
	field, op, literal string
}

// token of a filter: a word, a quoted literal or an operator.
type filterToken struct {
	kind byte   // 'w', 'q', 'o', or 0 at the end
	text string // of a quoted literal: without quotes and escapes
	at   int    // byte offset, for errors
}

// parseFilter reads the whole filter. Errors are ErrFilter and say where.
func parseFilter(filter string) ([]term, error) {
	if len(filter) > maxFilter {
		return nil, amendsv1.ErrFilter.With("the filter has %d bytes, at most %d are allowed", len(filter), maxFilter)
	}
	tokens, err := scanFilter(filter)
	if err != nil {
		return nil, err
	}
	p := filterParser{tokens: tokens}
	if p.peek().kind == 0 {
		return nil, nil
	}
	var terms []term
	for {
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
		switch next := p.next(); {
		case next.kind == 0:
			return terms, nil
		case next.kind != 'w' || next.text != "AND":
			return nil, expected("AND or the end; terms are joined by AND only", next)
		}
	}
}

type filterParser struct {
	tokens []filterToken // ends with one of kind 0
}

func (p *filterParser) peek() filterToken { return p.tokens[0] }

func (p *filterParser) next() filterToken {
	t := p.tokens[0]
	if t.kind != 0 {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *filterParser) term() (term, error) {
	field := p.next()
	if field.kind != 'w' || isKeyword(field.text) {
		return term{}, expected("a field", field)
	}
	op := p.next()
	if op.kind != 'o' {
		return term{}, expected("an operator (= != < <= > >=) after "+strconv.Quote(field.text), op)
	}
	literal := p.next()
	if literal.kind != 'q' && (literal.kind != 'w' || isKeyword(literal.text)) {
		return term{}, expected("a value after "+op.text, literal)
	}
	return term{field: field.text, op: op.text, literal: literal.text}, nil
}

// isKeyword is about words that other filter languages know, so that a mistake
// is not read as a value. Quoted, they are values.
func isKeyword(word string) bool { return word == "AND" || word == "OR" || word == "NOT" }

func expected(what string, got filterToken) error {
	if got.kind == 0 {
		return amendsv1.ErrFilter.With("at the end: expected %s", what)
	}
	return amendsv1.ErrFilter.With("at byte %d: expected %s, found %q", got.at, what, got.text)
}

// scanFilter cuts a filter into tokens; the last one is of kind 0.
func scanFilter(filter string) ([]filterToken, error) {
	var tokens []filterToken
	for at := 0; at < len(filter); {
		if r, n := utf8.DecodeRuneInString(filter[at:]); unicode.IsSpace(r) {
			at += n
			continue
		}
		t, n, err := scanToken(filter[at:], at)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
		at += n
	}
	return append(tokens, filterToken{at: len(filter)}), nil
}

// scanToken reads the token that s begins with and returns its length.
func scanToken(s string, at int) (filterToken, int, error) {
	switch s[0] {
	case '"':
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return filterToken{}, 0, amendsv1.ErrFilter.With("at byte %d: a quoted value that does not end or has a bad escape", at)
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return filterToken{}, 0, amendsv1.ErrFilter.With("at byte %d: %v", at, err)
		}
		return filterToken{'q', text, at}, len(quoted), nil
	case '=':
		return filterToken{'o', "=", at}, 1, nil
	case '!', '<', '>':
		if len(s) > 1 && s[1] == '=' {
			return filterToken{'o', s[:2], at}, 2, nil
		}
		if s[0] != '!' {
			return filterToken{'o', s[:1], at}, 1, nil
		}
	}
	n := strings.IndexFunc(s, endsWord)
	switch {
	case n < 0:
		n = len(s)
	case n == 0:
		return filterToken{}, 0, amendsv1.ErrFilter.With("at byte %d: %q has no meaning here", at, s[:1])
	}
	return filterToken{'w', s[:n], at}, n, nil
}

func endsWord(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`"'()=!<>`, r) }
