# The image of the operators: Python, the locked wheels, the framework's wheel, the operators. Both stages use the same base
# image, so that the wheels fit the Python that runs them: docker.io/library/python:3.13-slim, or any image with python3
# (3.11 or newer) and, for the first stage, pip.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
COPY requirements/image.txt /build/
# For your own package index or proxy: --secret id=pip,src=PIP.CONF, and --secret id=ca,src=BUNDLE for its CA certificates.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip install --no-cache-dir --disable-pip-version-check --no-compile --no-deps \
    --only-binary=:all: --require-hashes --target=/opt/pilothouse/site -r /build/image.txt
# Unchecked byte code does not depend on time stamps: it stays valid when a layer is copied, and is not checked at start.
# Sources and headers that only a compiler needs are removed.
RUN find /opt/pilothouse/site -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.c' -o -name '*.h' | xargs -r rm \
    && rm -rf /opt/pilothouse/site/bin \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/pilothouse/site
# Builds the framework's wheel with the build backend of its pyproject.toml.
COPY requirements/build.txt /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip install --no-cache-dir --disable-pip-version-check --no-compile --no-deps \
    --only-binary=:all: --require-hashes --target=/build/backend -r /build/build.txt
COPY LICENSE README.md pyproject.toml /build/source/
COPY requirements/runtime.txt /build/source/requirements/
COPY examples/greeter /build/source/examples/greeter
COPY operator /build/source/operator
# The test kit and the packaging tools are for authors and are not part of the image.
RUN cd /build/source \
    && PYTHONPATH=/build/backend python3 -m hatchling build -t wheel -d /build/wheel \
    && python3 -m pip install --no-cache-dir --disable-pip-version-check --no-compile --no-deps --no-index \
    --target=/opt/pilothouse/operator /build/wheel/*.whl \
    && rm -rf /opt/pilothouse/operator/bin /opt/pilothouse/operator/pilothouse/testing \
    /opt/pilothouse/operator/pilothouse/packaging /opt/pilothouse/operator/pilothouse/__main__.py \
    && cp -r operator/etcd_operator operator/flights_operator /opt/pilothouse/operator/ \
    && rm /opt/pilothouse/operator/etcd_operator/rpc/*.proto /opt/pilothouse/operator/etcd_operator/rpc/*.pyi \
    && chmod -R a+rX /opt/pilothouse/operator \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/pilothouse/operator

FROM ${BASE}
COPY LICENSE /licenses/LICENSE
# The wheels rarely change, so they have their own layer, which is not pushed and pulled with every change of our code.
COPY --from=build /opt/pilothouse/site /opt/pilothouse/site
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="pilothouse" \
      org.opencontainers.image.description="Kubernetes operators written as Python playbooks" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Pilothouse" \
      org.opencontainers.image.url="https://pilothouse.dev" \
      org.opencontainers.image.source="https://github.com/pilothouse/pilothouse" \
      org.opencontainers.image.documentation="https://pilothouse.dev/docs" \
      name="pilothouse" \
      vendor="Pilothouse" \
      version="${VERSION}" \
      release="1" \
      summary="Kubernetes operators written as Python playbooks" \
      description="The runtime and its operators; the first argument names the operator: etcd_operator or flights_operator" \
      maintainer="maintainers@pilothouse.dev"
COPY --from=build /opt/pilothouse/operator /opt/pilothouse/operator
ENV PYTHONPATH=/opt/pilothouse/operator:/opt/pilothouse/site \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["python3", "-m"]
CMD ["flights_operator"]
