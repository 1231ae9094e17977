#!/usr/bin/env bash
# Install agman into the environment at hand, see that nothing else changed, run every notebook.
# For Colab's own image (weekly workflow), or any environment with Colab's versions first on PATH:
#   tools/in_colab.sh [NOTEBOOK...]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
others() { python3 -m pip freeze --all | grep -v '^agman'; }

others > before
python3 -m pip install -q "$root"
others > after
diff before after || { echo "Installing agman changed the packages above."; exit 1; }

notebooks=("$@")
[ $# -gt 0 ] || notebooks=("$root"/book/*.ipynb)
for notebook in "${notebooks[@]}"; do
  echo "${notebook##*/}"
  python3 -m nbconvert --log-level=WARN --to notebook --execute --ExecutePreprocessor.timeout=1200 \
    --output-dir "$work" --stdout < "$notebook" --stdin > ran.ipynb
done
