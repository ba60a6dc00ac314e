#!/bin/sh
# Says what this machine lacks, with the command that installs it.
#   tools/preflight.sh run    what a mount needs
#   tools/preflight.sh test   what the tests need besides
set -u

mode=${1:-run}
python=${PYTHON:-python3}
packages=
problems=0

problem() {
    problems=$((problems + 1))
    printf "missing: %s\n" "$*" >&2
}

want() { # command, Debian package, what for
    if ! command -v "$1" >/dev/null 2>&1; then
        problem "$1 ($3)"
        packages="$packages $2"
    fi
}

check_python() {
    if ! command -v "$python" >/dev/null 2>&1; then
        problem "$python, version 3.11 or newer"
        packages="$packages python3 python3-venv"
    elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        problem "Python 3.11 or newer: $python is $("$python" -V 2>/dev/null || echo unusable)." \
            "Name a newer one with: make PYTHON=/path/to/python3.12 ..."
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        problem "the venv and ensurepip modules of $python"
        packages="$packages python3-venv"
    fi
}

check_fuse() {
    if ! [ -c /dev/fuse ]; then
        problem "/dev/fuse: as root run 'modprobe fuse';" \
            "in a container start it with '--device /dev/fuse --cap-add SYS_ADMIN'"
    elif [ "$(id -u)" -ne 0 ] && ! { [ -r /dev/fuse ] && [ -w /dev/fuse ]; }; then
        problem "access to /dev/fuse: as root run 'chmod 0666 /dev/fuse'"
    fi
    if [ "$(id -u)" -ne 0 ] || [ "$mode" = test ]; then
        want fusermount3 fuse3 'mounts for users other than root'
    fi
}

check_test_tools() {
    for tool in git rsync tar sqlite3; do
        want "$tool" "$tool" 'the tests run it on a mounted drive'
    done
    want diff diffutils 'the tests compare trees with it'
    want find findutils 'the tests walk a drive with it'
    want setpriv util-linux 'the tests drop privileges with it'
    want gcc gcc 'the tests compile a program on a drive'
    if command -v gcc >/dev/null 2>&1 &&
        ! printf '#include <stdio.h>\n#include <linux/fuse.h>\n' | gcc -E - >/dev/null 2>&1; then
        problem 'C headers of libc and Linux'
        packages="$packages libc6-dev linux-libc-dev"
    fi
}

want make make 'runs the targets'
check_python
check_fuse
if [ "$mode" = test ]; then
    check_test_tools
fi

if [ -n "$packages" ]; then
    printf 'install with:\n    apt install%s\n' "$packages" >&2
fi
[ "$problems" -eq 0 ]
