# syntax=docker/dockerfile:1
# zta-authz as an image for amd64 and arm64: docs/kubernetes.md, "Build the image".
#
#   docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max \
#     --build-arg BASE_DIGEST=sha256:… --tag registry.example.com/zta-authz:1.0.0 --push .
#
# The base is named by digest, so that the same source gives the same image. There is no default: without --build-arg the build ends
# at its first line. `docker buildx imagetools inspect python:3.11-slim-bookworm` prints the digest of the whole index, which
# holds both architectures.
ARG BASE_DIGEST

FROM python:3.11-slim-bookworm@${BASE_DIGEST} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Wheels of the pinned versions first: they change less often than the source. `--only-binary` runs nobody's build script.
COPY LICENSE constraints.txt pyproject.toml README.md ./
RUN python - <<'PY' > requirements.txt
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")
PY
RUN pip wheel --wheel-dir /wheels --only-binary :all: --constraint constraints.txt --requirement requirements.txt \
 && pip wheel --wheel-dir /build-tools --only-binary :all: --constraint constraints.txt setuptools
COPY zta_authz ./zta_authz
RUN pip install --upgrade --no-index --find-links /build-tools setuptools \
 && pip wheel --wheel-dir /wheels --no-index --no-deps --no-build-isolation . \
 && python -m venv --without-pip /opt/zta-authz \
 && pip --python /opt/zta-authz/bin/python install --no-index --no-compile --find-links /wheels zta-authz \
 && pip --python /opt/zta-authz/bin/python check \
 && /opt/zta-authz/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/zta-authz/lib

# What is in it, as pip sees it: docker buildx build --target sbom --output type=local,dest=. …
FROM build AS inspect
RUN pip --python /opt/zta-authz/bin/python inspect > /sbom.pip-inspect.json

FROM scratch AS sbom
COPY --from=inspect /sbom.pip-inspect.json /

FROM python:3.11-slim-bookworm@${BASE_DIGEST}
# Nothing is installed at run time, so nothing is left to install with.
# Byte code is made here (the base has none, and a read-only root keeps none), by its source's hash: the same in each build.
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip /usr/local/bin/pip* /var/lib/apt/lists/* \
 && python -m compileall -q --invalidation-mode unchecked-hash -x 'test/|lib2to3/' /usr/local/lib/python3.11
COPY --from=build /opt/zta-authz /opt/zta-authz
COPY --from=inspect /sbom.pip-inspect.json /opt/zta-authz/sbom.pip-inspect.json
ENV PATH=/opt/zta-authz/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="zta-authz" \
      org.opencontainers.image.description="Zero-trust external authorization for Envoy and Istio"
# A number, not a name: `runAsNonRoot` can judge only numbers.
USER 65532:65532
WORKDIR /
EXPOSE 9191 9192
STOPSIGNAL SIGTERM
# No HEALTHCHECK: whoever runs it asks /healthz and /readyz, or gRPC health, from outside.
ENTRYPOINT ["/opt/zta-authz/bin/zta-authz"]
CMD ["serve", "--config", "/etc/zta-authz/config/config.yaml"]
