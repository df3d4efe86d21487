"""`zta-authz envoy-config`: generate Envoy's configuration from typed messages (envoy-data-plane).

command    the command line, and what is printed
plan       command line and settings to `EnvoyOptions`, or every fault at once; targets: where zta-authz is reached
options    what may differ between configurations; places: addresses
listener   the typed messages, with clusters and parts
notes      why each option is there, which yaml_text writes beside it

Nothing but `listener`, `clusters` and `parts` imports envoy-data-plane, which takes a second.
"""
