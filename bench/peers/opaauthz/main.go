// OPA's engine behind ext_authz v3: Rego, evaluated in the process by OPA's own library, with prepared queries.
//
// It is not OPA-Envoy, and does less: no decision log, no bundles, no status, no metrics, no tracing. What OPA-Envoy
// takes for a check is at least what this takes.
//
// Usage: opaauthz SOCKET POLICY.rego DATA.json [--no-token-cache]
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	query = "data.authz.allow"
	// OPA keeps verified tokens only where it is told to; keys are kept by default.
	withTokenCache = `{"inter_query_builtin_value_cache": {"named": {"io_jwt": {"max_num_entries": 1000}}}}`
)

type server struct {
	auth.UnimplementedAuthorizationServer
	query  rego.PreparedEvalQuery
	values cache.InterQueryValueCache
}

// Check answers what the policy says; an error of the evaluation is gRPC's, which the proxy takes for a denial.
func (s *server) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	input, err := toInput(request)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	result, err := s.query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalInterQueryBuiltinValueCache(s.values))
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if result.Allowed() {
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

func prepare(policyPath, dataPath string) rego.PreparedEvalQuery {
	policy, err := os.ReadFile(policyPath)
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(dataPath)
	if err != nil {
		log.Fatal(err)
	}
	var data map[string]any
	if err := json.Unmarshal(text, &data); err != nil {
		log.Fatal(err)
	}
	// Data is kept in the evaluator's own form (OPA's own option for speed): nothing is converted at each evaluation.
	store := inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true))
	prepared, err := rego.New(
		rego.Query(query), rego.Module("policy.rego", string(policy)), rego.Store(store), rego.StoreReadAST(true),
	).PrepareForEval(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	return prepared
}

func values(withTokens bool) cache.InterQueryValueCache {
	text := []byte("{}")
	if withTokens {
		text = []byte(withTokenCache)
	}
	config, err := cache.ParseCachingConfig(text)
	if err != nil {
		log.Fatal(err)
	}
	return cache.NewInterQueryValueCache(context.Background(), config)
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: opaauthz SOCKET POLICY.rego DATA.json [--no-token-cache]")
	}
	service := &server{query: prepare(os.Args[2], os.Args[3]), values: values(!slices.Contains(os.Args[4:], "--no-token-cache"))}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	auth.RegisterAuthorizationServer(grpcServer, service)
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; grpcServer.Stop() }()
	if err := grpcServer.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
