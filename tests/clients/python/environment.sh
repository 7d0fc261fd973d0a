# What the Python programs run in: kazoo in an environment of its own. Source it, do not run it; SUITE_DIR is set.
source "$SUITE_DIR/../suite.sh"

packages python3=python3
python3 -c 'import ensurepip, venv' 2>/dev/null || packages /usr/share/doc/python3-venv=python3-venv

venv="$CACHE/python"
if ! cmp -s "$SUITE_DIR/requirements.txt" "$venv/requirements.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$SUITE_DIR/requirements.txt"
  cp "$SUITE_DIR/requirements.txt" "$venv/requirements.txt"
fi
