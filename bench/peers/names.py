"""The names of the compared servers and configurations in results, tables and plots."""

from __future__ import annotations

from typing import Final

EMPTY: Final = "empty grpc.aio"
FAST: Final = "zta fast"
GRPCIO: Final = "zta grpcio"
GO: Final = "go"
OPA_RULES: Final = "opa rules"
OPA_LIST: Final = "opa list"
OPA_KEYED: Final = "opa keyed"
OPA_UNCACHED: Final = "opa rules, tokens not kept"
OPA_ENVOY: Final = "opa-envoy"
OPA: Final = (OPA_RULES, OPA_LIST, OPA_KEYED, OPA_UNCACHED, OPA_ENVOY)

NONE: Final = "no check"
RBAC: Final = "envoy rbac"
RBAC_AND_FAST: Final = "envoy rbac + zta fast"
