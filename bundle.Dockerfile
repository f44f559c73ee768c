# An operator's OLM bundle: --build-arg PACKAGE=pilothouse-flights. The labels say what
# bundle/PACKAGE/metadata/annotations.yaml says (a test compares them). Who unpacks it is not its owner, hence the mode.
FROM scratch
ARG PACKAGE
LABEL operators.operatorframework.io.bundle.mediatype.v1=registry+v1 \
      operators.operatorframework.io.bundle.manifests.v1=manifests/ \
      operators.operatorframework.io.bundle.metadata.v1=metadata/ \
      operators.operatorframework.io.bundle.package.v1=${PACKAGE} \
      operators.operatorframework.io.bundle.channels.v1=stable \
      operators.operatorframework.io.bundle.channel.default.v1=stable \
      operators.operatorframework.io.metrics.builder=operator-sdk-v1.42.2 \
      operators.operatorframework.io.metrics.mediatype.v1=metrics+v1 \
      operators.operatorframework.io.metrics.project_layout=pilothouse.dev/v1 \
      operators.operatorframework.io.test.mediatype.v1=scorecard+v1 \
      operators.operatorframework.io.test.config.v1=tests/scorecard/
COPY --chmod=755 bundle/${PACKAGE}/manifests /manifests/
COPY --chmod=755 bundle/${PACKAGE}/metadata /metadata/
COPY --chmod=755 bundle/${PACKAGE}/tests/scorecard /tests/scorecard/
