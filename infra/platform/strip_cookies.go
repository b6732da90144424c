// Package stripcookies is a Traefik plugin: it takes cookies out of requests before a backend sees them, by the beginnings
// of their names. Traefik interprets it; it is never compiled.
package stripcookies

import (
	"context"
	"net/http"
	"strings"
)

// Config is the middleware's own settings.
type Config struct {
	Prefixes []string `json:"prefixes,omitempty"`
}

// CreateConfig is what Traefik fills the settings into.
func CreateConfig() *Config { return &Config{} }

type stripper struct {
	next     http.Handler
	prefixes []string
}

// New is called once for each middleware.
func New(_ context.Context, next http.Handler, config *Config, _ string) (http.Handler, error) {
	return &stripper{next: next, prefixes: config.Prefixes}, nil
}

// ServeHTTP cuts the header as text: parsed and written again, other cookies might come out changed.
func (s *stripper) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	kept := []string{}
	for _, line := range request.Header["Cookie"] {
		for _, cookie := range strings.Split(line, ";") {
			cookie = strings.TrimSpace(cookie)
			if cookie != "" && !s.strips(cookie) {
				kept = append(kept, cookie)
			}
		}
	}
	request.Header.Del("Cookie")
	if len(kept) > 0 {
		request.Header.Set("Cookie", strings.Join(kept, "; "))
	}
	s.next.ServeHTTP(response, request)
}

func (s *stripper) strips(cookie string) bool {
	for _, prefix := range s.prefixes {
		if strings.HasPrefix(cookie, prefix) {
			return true
		}
	}
	return false
}
