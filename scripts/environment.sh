# Sourced by the commands beside it: leaves $root and $python set, the environment holding exactly requirements.lock.
CLASSROOM_BEGAN=$(date +%s)
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$root/.venv/bin/python
lock=$root/requirements.lock

# One call at a time: a second one waits until the first has made the environment.
exec 9>"$root/.venv.lock"
flock 9
if ! cmp -s "$lock" "$root/.venv/installed.lock"; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "Python environment: python3 is older than 3.11; put a newer one on PATH, then run this again" >&2; exit 2; }
    echo "Python environment: installing $(grep -c == "$lock") locked packages into .venv" >&2
    rm -rf "$root/.venv"
    if ! python3 -m venv "$root/.venv" >/dev/null 2>&1; then
        # Debian keeps venv's pip apart from Python.
        rm -rf "$root/.venv"
        apt-get -q update >&2 && apt-get -q install -y --no-install-recommends python3-venv >&2 && python3 -m venv "$root/.venv" ||
            { echo "Python environment: python3 -m venv does not work here; install Python 3.11 or newer with venv, then run this again" >&2; exit 2; }
    fi
    "$python" -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps --requirement "$lock" >&2 ||
        { echo "Python environment: the package index did not give what requirements.lock names; see pip's words above, then run this again" >&2; exit 2; }
    # Written last: an installation that was cut off begins again.
    cp "$lock" "$root/.venv/installed.lock"
fi
exec 9>&-

PATH=$root/.venv/bin:$PATH
# Programs and Pulumi's provider processes find infra, labs and scripts here, whatever folder the command is typed in.
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
PYTHONUTF8=1
export PATH PYTHONPATH PYTHONUTF8 CLASSROOM_BEGAN
