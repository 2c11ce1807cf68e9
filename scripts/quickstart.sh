#!/usr/bin/env bash
# The whole way on the embedded digit images: install, fit, evaluate, report, export, predict.
source "$(dirname "$0")/environment.sh"
install "."
run=saved_models/quickstart-$(date +%Y%m%d-%H%M%S)
kclassify="$VENV/bin/kclassify"

step() { printf '\n== %s\n' "$*"; "$@"; }

step "$kclassify" fit digits --run-dir "$run"
step "$kclassify" evaluate "$run"
step "$kclassify" report "$run"
step "$kclassify" export "$run"
"$VENV/bin/python" scripts/digit_image.py "$run/digit.png"
step "$kclassify" predict "$run/export/1" "$run/digit.png"

printf '\n%-34s %s\n' "what" "where"
printf '%-34s %s\n' \
    "configuration, environment" "$run/config.json, environment.json" \
    "epoch by epoch" "$run/history.csv" \
    "the model, for plain Keras 3" "$run/model.keras" \
    "metrics, tables" "$run/metrics.json, metrics.csv, per_class.csv, confusion.csv" \
    "predictions of every test image" "$run/predictions-test.npz" \
    "the report: open it in a browser" "$run/report.html" \
    "the verified SavedModel" "$run/export/1"
