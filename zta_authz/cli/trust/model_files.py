"""Read trust models from one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    from zta_authz.trust.assessment import CompiledTrustModel


def read_models(file: str) -> dict[str, CompiledTrustModel]:
    """The models in `file` by `namespace/name`. Other documents are ignored. Raises `FaultsError`, also without one."""
    from zta_authz.model.options import Options
    from zta_authz.policy.documents.reader import read_all
    from zta_authz.policy_sources.files import read_sources
    from zta_authz.trust.compile import compile_trust_model

    faults: list[Fault] = []
    sources = [(source.name, source.text) for source in read_sources([file], faults)]
    documents = read_all(sources, Options().workload.namespace, faults, [], lambda _: None)
    models = [compile_trust_model(spec, faults) for spec in documents.trust_models]
    if not models and not faults:
        hint = "write a TrustModel; `zta-authz trust default` prints one"
        faults.append(Fault(file, 0, 0, "the file has no TrustModel", hint))
    if faults:
        raise FaultsError(faults)
    return {model.name: model for model in models}
