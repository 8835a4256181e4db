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

# locked_files EXTRAS: the lock files for these extras and the Python in .venv; fails if there are none.
locked_files() {
    local folder file names=(build base)
    folder="launch/locks/$(.venv/bin/python -c 'import sys, platform
print(f"cp{sys.version_info[0]}{sys.version_info[1]}-{sys.platform}-{platform.machine()}")')"
    case "$1" in
        "") ;;
        "[tensorboard]") names+=(tensorboard) ;;
        "[dev]") names+=(dev torch) ;;
        "[gpu]") names+=(gpu) ;;
        "[docs]") names+=(docs) ;;
        *) return 1 ;;
    esac
    for file in "${names[@]}"; do
        [ -f "$folder/$file.txt" ] || return 1
        echo "$folder/$file.txt"
    done
}

# install ARGUMENTS: pip install, quietly.
install() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check "$@"
}

# environment EXTRAS: installs with these extras, such as "[tensorboard]" or "[dev]"; "" for none.
#
# For the Python and the platform of launch/locks/ it installs exactly the files listed there, checked
# by SHA-256, and then the project without looking for dependencies. For others it installs by the
# ranges of setup.cfg and the versions of launch/constraints.txt, without hashes.
environment() {
    local extras="$1" python stamp wanted locks file
    stamp=".venv/installed$extras"
    wanted="$(cat setup.cfg pyproject.toml launch/constraints.txt launch/locks/*/*.txt | cksum)"
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
    echo "Installing l2l_jax$extras (up to 3 GB, a minute or more; once only) ..."
    if locks="$(locked_files "$extras")"; then
        echo "Packages: those of $(dirname "${locks%%$'\n'*}"), checked by SHA-256."
        while read -r file; do
            # torch.txt names an index that may be out of reach; its dependencies are in dev.txt.
            case "$file" in
                */torch.txt) install --require-hashes --no-deps --retries 1 -r "$file" ;;
                *) install --require-hashes --no-deps --no-build-isolation -r "$file" ;;
            esac || return 1
        done <<<"$locks"
        install --no-deps --no-build-isolation --editable ".$extras" || return 1
    else
        echo "Packages: by the ranges of setup.cfg and launch/constraints.txt, not checked by hash" \
            "(launch/locks/ has none for $(.venv/bin/python --version) on $(uname -sm)$extras)."
        install --constraint launch/constraints.txt --editable ".$extras" || return 1
    fi
    echo "$wanted" >"$stamp"
}
