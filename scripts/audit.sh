#!/usr/bin/env bash
# Look the installed packages up in the advisory database of PyPI; skipped where it cannot be reached.
source "$(dirname "$0")/environment.sh"
database=https://pypi.org/pypi/pip/json

if ! "$VENV/bin/python" -c "import sys, urllib.request; urllib.request.urlopen('$database', timeout=10)" 2>/dev/null; then
    echo "SKIPPED: packages were not audited, since the advisory database cannot be reached ($database)"
    exit 0
fi
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "pip-audit>=2.9"
"$VENV/bin/python" -m pip_audit --skip-editable --progress-spinner off
