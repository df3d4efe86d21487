// A trivial ext_authz v3 server: what a compiled language takes for the same call with a fixed rule set.
//
// It believes the principal that the proxy names, looks its rules up in a map and compares method and path. It verifies
// no certificate and no token, writes no decision log, and has no metrics: a floor, not a product.
//
// Usage: goauthz SOCKET RULES.json
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// rule says what a principal may (or, with Deny, must not) do. A path that ends with "*" is a prefix.
type rule struct {
	Principal string   `json:"principal"`
	Deny      bool     `json:"deny"`
	Methods   []string `json:"methods"`
	Paths     []string `json:"paths"`
}

func (r *rule) matches(method, path string) bool {
	return slices.Contains(r.Methods, method) && slices.ContainsFunc(r.Paths, func(pattern string) bool {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		return path == pattern || isPrefix && strings.HasPrefix(path, prefix)
	})
}

// server holds the rules by principal, as a server written for this one purpose would.
type server struct {
	auth.UnimplementedAuthorizationServer
	rules map[string][]rule
}

// Check denies where a DENY rule matches, else allows where an ALLOW rule does, else denies.
func (s *server) Check(_ context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	attributes := request.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	path, _, _ := strings.Cut(http.GetPath(), "?")
	allowed := false
	for _, rule := range s.rules[strings.TrimPrefix(attributes.GetSource().GetPrincipal(), "spiffe://")] {
		if rule.matches(http.GetMethod(), path) {
			if rule.Deny {
				return denied, nil
			}
			allowed = true
		}
	}
	if allowed {
		return ok, nil
	}
	return denied, nil
}

var (
	ok = &auth.CheckResponse{
		Status:       &rpc.Status{Code: int32(codes.OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}},
	}
	denied = &auth.CheckResponse{
		Status: &rpc.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &envoytype.HttpStatus{Code: envoytype.StatusCode_Forbidden},
		}},
	}
)

func load(path string) map[string][]rule {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var rules []rule
	if err := json.Unmarshal(text, &rules); err != nil {
		log.Fatal(err)
	}
	byPrincipal := make(map[string][]rule, len(rules))
	for _, each := range rules {
		byPrincipal[each.Principal] = append(byPrincipal[each.Principal], each)
	}
	return byPrincipal
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: goauthz SOCKET RULES.json")
	}
	rules := load(os.Args[2])
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	auth.RegisterAuthorizationServer(grpcServer, &server{rules: rules})
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; grpcServer.Stop() }()
	if err := grpcServer.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
