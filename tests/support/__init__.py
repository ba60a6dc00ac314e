"""What tests through a real mount share: a client process, a recorder of events, mounting.

The handlers live in the test's own process, so that a test sees what they saw. Whatever touches the
mount runs in another process: `Client` for single calls, `run` for whole programs.
"""
