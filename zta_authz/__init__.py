"""zta-authz: the policy decision behind an Envoy proxy, one request at a time.

Reading order, from the nouns to the process (imports point the other way round, downwards only):

    errors          reason codes and faults
    model/          nouns: SPIFFE IDs, request, evidence, identity, decision, documents, options       [pure]
    authn/          evidence + keys + now -> identity: X.509-SVIDs, JWTs                               [pure]
    policy/         documents -> rule table: YAML reader, matchers, compiler, index                    [pure]
    pdp/            the decision: snapshot of rules and keys, decide, explain                          [pure]
    ports           what the authorizer needs from the world
    authorizer      the data path, one plain call
    grpc_h2/        HTTP/2 and unary gRPC without I/O, knowing nothing of authorization                [pure]
    otlp/           OpenTelemetry's protocol, knowing nothing of authorization
    ext_authz/      Envoy's protocol: CheckRequest in, CheckResponse out; the Check method
    servers/        listeners, TLS and gRPC health; `grpcio` on gRPC's library, `fast` on grpc_h2
    policy_sources/ policy files from disk                keys/   key material that is fetched
    audit/          the decision log                      admin/  health pages, status, explain
    telemetry/      spans, metrics, logs
    settings/       file and environment -> Settings
    signals         what they do before the event loop takes them
    sockets         the TCP sockets that all listen on
    failure_log     exceptions that were survived
    service/        the running service: `app` builds and joins everything, `workers` are several processes of it
    cli/            the operator's commands, also run by __main__
"""

__version__ = "0.1.0"
