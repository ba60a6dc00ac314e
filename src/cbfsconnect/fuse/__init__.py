"""How this package speaks to the kernel: wire format, transport and mounting of FUSE."""
