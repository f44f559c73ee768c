# The file-based catalog of all our packages, served by opm.
ARG OPM=quay.io/operator-framework/opm:v1.73.0
FROM ${OPM}
# Readable by whoever serves it, whatever the umask here was.
COPY --chmod=755 catalog /configs
# The cache is made by the same opm that serves it; it refuses one of another making.
RUN ["/bin/opm", "serve", "/configs", "--cache-dir=/tmp/cache", "--cache-only"]
LABEL operators.operatorframework.io.index.configs.v1=/configs
ENTRYPOINT ["/bin/opm"]
CMD ["serve", "/configs", "--cache-dir=/tmp/cache"]
