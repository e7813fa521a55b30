#!/bin/bash
# Installs the server on an image that brings an engine, and its Python packages, along: install-on-base.sh ENGINE BASE
# Runs as a step of the build. What the base has is used; the rest comes from the lock file, with hashes.
set -euo pipefail
engine=$1
base=$2
build=/run/build        # the stage that built the wheel: sources, wheel, pip
installed=/run/nim      # the same server as the cpu image has it
tools=$build/dist/tools
python=/opt/nim/.venv/bin/python

python3 -B "$build/docker/triton_libraries.py" adopt

# Packages of the base stay visible; what is installed here comes before them.
python3 -m venv --without-pip --system-site-packages /opt/nim/.venv
chosen=$(mktemp)
PYTHONPATH=$tools python3 -B "$build/docker/base_packages.py" --lock "$build/locks/runtime.txt" \
    --like "$(echo "$installed"/.venv/lib/python3*/site-packages)" --product gemma4-nim > "$chosen"
install=("$python" -B -m pip install --no-cache-dir --no-compile --no-deps)
if [ -s "$chosen" ]; then
    PYTHONPATH=$tools "${install[@]}" --require-hashes --only-binary :all: -r "$chosen"
fi
PYTHONPATH=$tools "${install[@]}" --no-index "$build"/dist/*.whl
rm "$chosen"
"$python" -m compileall -q --invalidation-mode unchecked-hash /opt/nim/.venv/lib

mkdir -p /opt/nim/.cache /opt/nim/workspace
cp -r "$installed/etc" "$installed/LICENSE" "$installed/MODEL_LICENSE" /opt/nim/
chown 1000:0 /opt/nim/.cache /opt/nim/workspace
chmod 2775 /opt/nim/.cache /opt/nim/workspace

# Nothing in this image has to become another user.
find / -xdev -type f -perm /6000 -exec chmod ug-s {} +

# A base without its engine, or for another Python, ends the build here and not at a customer's.
"$python" -c "import importlib.metadata as found, sys; print(sys.argv[1], found.version(sys.argv[1]))" "$engine"
"$python" -c "import config.settings, engine.core, launcher.cli"
"$python" -B "$build/docker/sbom.py" --base "$base" --into /opt/nim
