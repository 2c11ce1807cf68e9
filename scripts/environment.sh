# Sourced by the other scripts: makes the virtual environment and installs kclassify into it.
# VENV chooses the folder, PYTHON the interpreter (3.11 to 3.13).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}

find_python() {
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "kclassify needs Python 3.11, 3.12 or 3.13 with venv. Install one, or name it: PYTHON=/path/to/python3.12 bash $0" >&2
    return 1
}

install() { # install TARGET, such as "." or ".[test]"
    local python uncompiled=""
    if [ ! -x "$VENV/bin/python" ]; then
        python=$(find_python)
        "$python" -m venv "$VENV"
        uncompiled=--no-compile
    fi
    echo "installing kclassify into $VENV (a minute or two the first time)"
    # As a path: a hook would find the clone itself, of the same name, in the folder that it is in.
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check $uncompiled --config-settings editable_mode=compat -e "$1"
    # All cores compile in a third of the time that pip takes with one; what some packages bring for
    # other versions of Python fails.
    [ -z "$uncompiled" ] || "$VENV/bin/python" -m compileall -q -j 0 "$VENV/lib" >/dev/null 2>&1 || true
}
