#!/bin/sh
# Runs the tests on every supported Python that is found, except the one of .venv, each in an
# environment of its own (.venv-3.12, ...). What they print comes when they are done.
set -eu

here=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

usable() { # python, version: a shim may stand in the path for a Python that is not there
    "$1" -c "import sys, ensurepip, venv
sys.exit('%d.%d' % sys.version_info[:2] != '$2')" >/dev/null 2>&1
}

find_python() { # version
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1"*/bin/"python$1"; do
        if usable "$candidate" "$1"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

prepare() { # python, environment
    if ! [ "$2/.installed" -nt pyproject.toml ]; then
        [ -x "$2/bin/python" ] || "$1" -m venv "$2"
        "$2/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
        touch "$2/.installed"
    fi
}

# Side by side: most of the time they wait for other processes.
running=
for version in 3.11 3.12 3.13; do
    [ "$version" != "$here" ] || continue
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        printf '=== Python %s: not found on this machine\n' "$version"
        continue
    fi
    prepare "$python" ".venv-$version"
    printf '=== Python %s (%s): see .venv-%s/tests.log\n' "$version" "$python" "$version"
    ".venv-$version/bin/python" -m pytest >".venv-$version/tests.log" 2>&1 &
    running="$running $version:$!"
done

failed=
for one in $running; do
    wait "${one#*:}" || failed="$failed ${one%:*}"
    printf '=== Python %s\n' "${one%:*}"
    cat ".venv-${one%:*}/tests.log"
done
[ -z "$failed" ] || printf '=== failed on Python%s\n' "$failed"
[ -z "$failed" ]
