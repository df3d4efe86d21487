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
    ext_authz/      Envoy's protocol: CheckRequest and CheckResponse, the gRPC servers
    policy_sources/ policy files from disk                keys/   key material that is fetched
    audit/          the decision log                      admin/  health, status, explain
    telemetry/      spans, metrics, logs
    settings        file and environment -> Settings
    app             builds and joins everything
    loading         what a service begins with
    preflight       what else keeps one from starting
    reloading       what is read again while serving
    serving         its servers
    warmup          its first check, before it is ready
    signals         what they do before the event loop takes them
    sockets         the TCP sockets that all listen on
    failure_log     exceptions that were survived
    telling         its decision log, spans and metrics
    readiness       what keeps anybody from being allowed
    workers/        several processes behind one supervisor
    cli/            the operator's commands, also run by __main__
"""

__version__ = "0.1.0"
