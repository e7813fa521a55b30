# syntax=docker/dockerfile:1
# The images of gemma4-nim: targets cpu (the default), vllm and tensorrt-llm; docs/docker.md tells how to build and run
# them. Target bundles builds no image but engine bundles.
#
# What each image is built on. Name another with --build-arg. Those with a digest are always the same; those of the two
# engines are known by their tags only. docs/docker.md tells how to find a digest.
ARG CPU_BASE_IMAGE=docker.io/library/debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
ARG VLLM_BASE_IMAGE=docker.io/vllm/vllm-openai:v0.32.0
ARG TENSORRT_LLM_BASE_IMAGE=nvcr.io/nvidia/tensorrt-llm/release:1.4.0rc1
# 26.08 is the oldest that may be used: earlier ones have holes that let strangers in (CVE-2025-23319, -23320, -23334).
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.08-py3@sha256:9185ba5b33d2c85c9204b208957b4bbfc6b2b89066efc9192e0f60c2ab58cec0

# --- Everything that is installed into the cpu image, and the wheel of gemma4-nim for all of them ---------------------
FROM ${CPU_BASE_IMAGE} AS installed
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Debian keeps one version of each package, so a pinned one could not be installed after its next security update.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils ca-certificates libgomp1 python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The lock alone first: while it stays the same, this step is not run again. A company's own registry is told with
# --secret id=pip.conf,src=..., which leaves nothing in a layer.
COPY locks/runtime.txt locks/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/nim/.venv \
 && /opt/nim/.venv/bin/python -m pip install --no-cache-dir --no-compile --no-deps --require-hashes \
        --only-binary :all: -r locks/runtime.txt
COPY . .
RUN /opt/nim/.venv/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/nim/.venv/bin/python -m pip install --no-cache-dir --no-compile --no-deps --no-index dist/*.whl \
 && /opt/nim/.venv/bin/python -m pip check \
 && mkdir dist/tools && cp -r /opt/nim/.venv/lib/python3*/site-packages/{pip,packaging} dist/tools
RUN mkdir -p /opt/nim/etc/default /opt/nim/.cache /opt/nim/workspace \
 && install -m 644 LICENSE docker/MODEL_LICENSE /opt/nim/ \
 && /opt/nim/.venv/bin/python -m config.manifest_export > /opt/nim/etc/default/model_manifest.yaml \
 && /opt/nim/.venv/bin/python docker/slim.py /opt/nim/.venv --product gemma4-nim \
 && chmod -R u=rwX,g=rX,o=rX /opt/nim \
 && chown 1000:0 /opt/nim/.cache /opt/nim/workspace && chmod 2775 /opt/nim/.cache /opt/nim/workspace

# --- Engine bundles: what can be made of a checkpoint without a GPU; docs/docker.md tells how to take them out --------
FROM installed AS prebuild
ARG PREBUILD=demo-moe
ARG PREBUILD_OPTIONS=""
ENV NIM_CACHE_PATH=/cache
# The options are several words. A key for the models' source comes with --secret id=HF_TOKEN and stays in no layer.
# hadolint ignore=SC2086
RUN --mount=type=secret,id=HF_TOKEN,target=/run/HF_TOKEN \
    if [ -s /run/HF_TOKEN ]; then export HF_TOKEN_FILE=/run/HF_TOKEN; fi \
 && /opt/nim/.venv/bin/gemma4-nim build "${PREBUILD}" --prebuild-only ${PREBUILD_OPTIONS} \
 && rm -rf /cache/bundles/.locks /cache/bundles/.work

FROM scratch AS bundles
COPY --from=prebuild /cache/bundles /bundles

# --- Triton, reduced to the server and its Python backend, with the libraries that they are linked with ---------------
FROM ${TRITON_IMAGE} AS triton
COPY docker/triton_libraries.py /run/
RUN ["python3", "-B", "/run/triton_libraries.py", "collect"]

# A stage takes its settings from the image that it is built on and from nowhere else, so from ENV on the three targets
# say the same, each for itself; a test holds them to that.

# --- vllm: vLLM, in its own server or in Triton -----------------------------------------------------------------------
FROM ${VLLM_BASE_IMAGE} AS vllm
USER 0
COPY --from=triton /opt/tritonserver /opt/tritonserver
ARG VLLM_BASE_IMAGE
RUN --mount=type=bind,from=installed,source=/build,target=/run/build \
    --mount=type=bind,from=installed,source=/opt/nim,target=/run/nim \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /run/build/docker/install-on-base.sh vllm "${VLLM_BASE_IMAGE}"
ENV PATH=/opt/nim/.venv/bin:/opt/tritonserver/bin:${PATH} \
    HOME=/tmp USER=nim LOGNAME=nim LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 \
    VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/nim/workspace
USER 1000:0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/opt/nim/.venv/bin/gemma4-nim", "health"]
ENTRYPOINT ["/opt/nim/.venv/bin/python", "-m", "launcher.entrypoint"]
CMD []
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="gemma4-nim" \
      org.opencontainers.image.description="Serves Google's Gemma 4 behind an OpenAI-style API; engine: vLLM" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${VLLM_BASE_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"

# --- tensorrt-llm: TensorRT-LLM, in its own server or in Triton -------------------------------------------------------
FROM ${TENSORRT_LLM_BASE_IMAGE} AS tensorrt-llm
USER 0
COPY --from=triton /opt/tritonserver /opt/tritonserver
ARG TENSORRT_LLM_BASE_IMAGE
RUN --mount=type=bind,from=installed,source=/build,target=/run/build \
    --mount=type=bind,from=installed,source=/opt/nim,target=/run/nim \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /run/build/docker/install-on-base.sh tensorrt_llm "${TENSORRT_LLM_BASE_IMAGE}"
ENV PATH=/opt/nim/.venv/bin:/opt/tritonserver/bin:${PATH} \
    HOME=/tmp USER=nim LOGNAME=nim LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 \
    VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/nim/workspace
USER 1000:0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/opt/nim/.venv/bin/gemma4-nim", "health"]
ENTRYPOINT ["/opt/nim/.venv/bin/python", "-m", "launcher.entrypoint"]
CMD []
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="gemma4-nim" \
      org.opencontainers.image.description="Serves Google's Gemma 4 behind an OpenAI-style API; engine: TensorRT-LLM" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${TENSORRT_LLM_BASE_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"

# --- cpu: llama.cpp, and the demo models ------------------------------------------------------------------------------
FROM ${CPU_BASE_IMAGE} AS cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# A base by digest grows old, so what has been repaired since comes on top. Nothing here has to become another user.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get upgrade --yes \
 && apt-get install --yes --no-install-recommends ca-certificates libgomp1 python3 \
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*.log \
        /var/log/apt /usr/lib/python3*/__pycache__ /usr/share/doc/*/*.gz /usr/share/man/* /usr/share/locale/*
COPY --from=installed /opt/nim /opt/nim
ARG CPU_BASE_IMAGE
RUN --mount=type=bind,source=docker,target=/run/docker \
    /opt/nim/.venv/bin/python -B /run/docker/sbom.py --base "${CPU_BASE_IMAGE}" --into /opt/nim
ENV PATH=/opt/nim/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=nim LOGNAME=nim LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
WORKDIR /opt/nim/workspace
USER 1000:0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/opt/nim/.venv/bin/gemma4-nim", "health"]
ENTRYPOINT ["/opt/nim/.venv/bin/python", "-m", "launcher.entrypoint"]
CMD []
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="gemma4-nim" \
      org.opencontainers.image.description="Serves Google's Gemma 4 behind an OpenAI-style API; engine: llama.cpp" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${CPU_BASE_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
