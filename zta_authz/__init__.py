"""zta-authz: an external authorization service for Envoy.

Reading order, from the data types up to the process (imports point downwards only):

    errors          reason codes and faults
    bounded_cache   the one cache that everything uses                                                 [pure]
    model/          data types: SPIFFE IDs, request, evidence, identity, decision, documents, options       [pure]
    authn/          evidence + keys + now -> identity: X.509-SVIDs, JWTs                               [pure]
    policy/         documents -> rule table: YAML reader, matchers, compiler, index                    [pure]
    trust/          trust models: what a request loses points for, its score and its level             [pure]
    access/         just-in-time access: the grants in force                                           [pure]
    security_events/ Shared Signals: security event tokens, and what they change                       [pure]
    minting/        tokens for applications: claims, signatures and the states of signing keys         [pure]
    pdp/            the decision: snapshot of rules and keys, decide, explain                          [pure]
    ports           interfaces that the authorizer needs from outside
    authorizer      the path of one request, as one plain call
    grpc_h2/        HTTP/2 and unary gRPC without I/O, independent of authorization                    [pure]
    otlp/           OpenTelemetry's protocol (OTLP), independent of authorization
    ext_authz/      Envoy's protocol: CheckRequest in, CheckResponse out; the Check method
    servers/        listeners, TLS and gRPC health; `grpcio` on gRPC's library, `fast` on grpc_h2
    policy_sources/ policy files from disk                keys/   fetching of key material
    facts/          network databases and device inventories, loaded for decisions
    following/      the administrator's grants, revocations and signals, received for decisions
    audit/          the decision log                      admin/  health pages, status, explain
    telemetry/      spans, metrics, logs
    settings/       file and environment -> Settings
    signals         signal handlers until the event loop installs its own
    sockets         listening TCP sockets
    memory_keys     private keys for TLS that are in no file system
    failure_log     the log of exceptions that the service survives
    service/        the running service: `app` builds and connects everything, `workers` runs several processes
    administrator/  the control plane: its store, and what people and other systems change
    cli/            the operator's commands; __main__ runs them too
"""

__version__ = "0.1.0"
