"""gcc, ar, the linker and make on a drive, and what they made run from there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.client import run

MAIN = """
#include <dlfcn.h>
#include <stdio.h>
#include "answer.h"
int main(void) {
    void *library = dlopen("./libplugin.so", RTLD_NOW);
    int (*plugin)(int) = library ? (int (*)(int))dlsym(library, "plugin") : 0;
    if (!plugin) { puts(dlerror()); return 1; }
    printf("%d %d %d\\n", ANSWER, answer(), plugin(20));
    return 0;
}
"""
MAKEFILE = """
program: main.o libanswer.a libplugin.so
\tgcc -o $@ main.o libanswer.a -ldl
main.o: main.c answer.h
\tgcc -g -c $<
libanswer.a: answer.c answer.h
\tgcc -c -o answer.o answer.c
\tar rcs $@ answer.o
libplugin.so: plugin.c
\tgcc -shared -fPIC -o $@ $<
"""


@pytest.fixture
def sources(drive: Path) -> Path:
    """A small C project."""
    (drive / "main.c").write_text(MAIN)
    (drive / "answer.h").write_text("#define ANSWER 41\nint answer(void);\n")
    (drive / "answer.c").write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    (drive / "plugin.c").write_text("int plugin(int x) { return 2 * x; }\n")
    (drive / "Makefile").write_text(MAKEFILE)
    return drive


def test_a_program_is_compiled_linked_and_run(sources: Path) -> None:
    run("make", "-s", cwd=sources)
    assert run(sources / "program", cwd=sources) == "41 41 40\n"


def test_make_sees_by_the_times_what_changed(sources: Path) -> None:
    run("make", "-s", cwd=sources)
    assert "up to date" in run("make", cwd=sources)
    (sources / "answer.h").write_text("#define ANSWER 42\nint answer(void);\n")
    rebuilt = run("make", cwd=sources)
    assert "plugin.c" not in rebuilt
    assert run(sources / "program", cwd=sources) == "42 42 40\n"


def test_a_running_program_can_be_replaced_but_not_written(sources: Path) -> None:
    run("make", "-s", cwd=sources)
    run("cp", "/bin/sleep", sources / "sleeper")
    with subprocess.Popen([sources / "sleeper", "1000"]) as process:
        # Popen returns when the program runs: before, exec itself would be refused.
        try:
            with pytest.raises(OSError, match="Text file busy"):
                os.open(sources / "sleeper", os.O_WRONLY)
            run("mv", sources / "program", sources / "sleeper")
            assert run(sources / "sleeper", cwd=sources) == "41 41 40\n"
        finally:
            process.kill()
