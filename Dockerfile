# The whole service: model, behaviour store, HTTP, and the bundled model and data.
#   docker run --read-only -p 8000:8000 -e AUGUR_SEED=kuairand:data/kuairand_pure augur
# It writes nothing on CPUs. On GPUs it writes kernels that were not compiled ahead to /var/cache/augur, which wants a volume.
# AUGUR_SEED stores the bundled users; without it, as with a store of one's own, no user of the demonstration is stored.
# All settings are AUGUR_* variables: docker run augur --help.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# What the project says it needs, so that nothing else in pyproject.toml, such as a new version, installs it again.
FROM ${BASE} AS requirements
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /requirements.txt

# The packages by themselves; without what only compiling or testing against them takes. pip stays out of /opt/venv.
FROM ${BASE} AS packages
# Extra options for pip. The default torch is a CUDA build of several GB; for a CPU build give an index that has one:
# --build-arg WHEELS="--index-url ...".
ARG WHEELS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/pip && python -m venv --without-pip /opt/venv
COPY constraints.txt ./
COPY --from=requirements /requirements.txt ./
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt ${WHEELS} \
 && cd /opt/venv/lib/python3*/site-packages && rm -rf torch/test torch/include pyarrow/include pyarrow/tests

FROM packages AS build
# The compiler of the CPU kernels, and Python's headers where the base has them in a package of their own.
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
    $(python -c 'import os, sysconfig; print("" if os.path.exists(sysconfig.get_path("include") + "/Python.h") else "python3-dev")') \
 && rm -rf /var/lib/apt/lists/*
ARG WHEELS
RUN /opt/pip/bin/pip install -c constraints.txt cmake nanobind ninja scikit-build-core ${WHEELS}
WORKDIR /src
COPY . .
# Into a tree of its own, /augur, whose files lie where they belong in the packages'. Where the kernels did not compile the
# package installs without them, which is no image to ship.
RUN /opt/pip/bin/pip wheel --no-deps --no-build-isolation -w /wheels ${WHEELS} . \
 && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-deps --root /augur /wheels/*.whl \
 && cp -a /augur/. / && cd / && /opt/venv/bin/python -c "import kernels.native._native"
# For GPUs: a CUDA build of torch, and what to compile kernels for ahead, of
# --build-arg GPU_TARGETS="cuda:80 cuda:86 cuda:89 cuda:90 cuda:100".
ARG GPU_TARGETS=""
# The last path is a part of the cache's keys, and no more: where the driver's library is, the loader knows.
ENV TRITON_CACHE_DIR=/var/cache/augur TRITON_LIBCUDA_PATH=/usr/local/lib
RUN mkdir -p /var/cache/augur && cd / \
 && if [ -n "${GPU_TARGETS}" ]; then /opt/venv/bin/python -m kernels.aot.cache --launcher /usr/local/lib --target ${GPU_TARGETS}; fi

FROM ${BASE}
RUN groupadd --gid 10001 augur \
 && useradd --uid 10001 --gid augur --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin augur
# Packages first: with new code, or a new version of it, their layer stays what it was, and nobody pulls it again.
COPY --from=packages /opt/venv /opt/venv
COPY LICENSE /app/
COPY data /app/data
COPY --from=build --chown=10001:10001 /var/cache/augur /var/cache/augur
COPY --from=build /augur /
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 AUGUR_HOST=0.0.0.0 \
    TRITON_CACHE_DIR=/var/cache/augur TRITON_LIBCUDA_PATH=/usr/local/lib
# What differs from build to build comes last.
ARG BASE
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="augur" \
      org.opencontainers.image.description="Online CTR inference: DIEN behind an HTTP scoring endpoint" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-SA-4.0" \
      org.opencontainers.image.base.name="${BASE}"
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('AUGUR_PORT', '8000') + '/readyz', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
