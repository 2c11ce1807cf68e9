#!/usr/bin/env bash
# Everything the fast suite needs, then the suite: lint, format, types, tests with coverage.
# Arguments go to pytest: bash scripts/test.sh tests/data -k resize
source "$(dirname "$0")/environment.sh"
install ".[test]"
export PYTHONWARNINGS=

if [ $# -gt 0 ]; then
    exec "$VENV/bin/python" -m pytest "$@"
fi
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/mypy"
# Counting lines costs the tests a twelfth of their time by sys.monitoring, which came with Python
# 3.12, and half of it by what there was before.
coverage=()
if "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
    export COVERAGE_CORE=sysmon
    coverage=(--cov --cov-report=term --cov-fail-under=90)
fi
"$VENV/bin/python" -m pytest -n 2 --dist loadfile --durations 10 \
    ${coverage[@]+"${coverage[@]}"} # as empty arrays are unset to the bash of macOS
