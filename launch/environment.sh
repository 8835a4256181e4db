# Sourced by demo.sh and test.sh: a function that makes .venv and installs this project into it.
# Needs only Python >= 3.11 and pip. A file in .venv records what is installed; if it is up to date,
# the function returns at once.

find_python() {
    local name
    for name in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed; set PYTHON to one." >&2
    return 1
}

# environment EXTRAS: installs with these extras, such as "[dev]" or "[gpu]"; "" for none.
environment() {
    local extras="$1" python stamp wanted
    stamp=".venv/installed$extras"
    wanted="$(cat setup.cfg pyproject.toml launch/constraints.txt | cksum)"
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ ! -x .venv/bin/python ]; then
        python="$(find_python)"
        echo "Making .venv with $("$python" --version) ..."
        "$python" -m venv .venv || { rm -rf .venv && "$python" -m virtualenv -q .venv; } || {
            rm -rf .venv
            echo "error: $python can make no virtual environment; install its venv module" \
                "(Debian: apt install python3-venv) or 'pip install virtualenv'." >&2
            return 1
        }
    fi
    echo "Installing l2l_jax$extras (about 3 GB, a minute or more; once only) ..."
    .venv/bin/python -m pip install -qq --disable-pip-version-check \
        --constraint launch/constraints.txt --editable ".$extras"
    echo "$wanted" >"$stamp"
}
