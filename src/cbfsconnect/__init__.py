"""Virtual file systems for Linux in pure Python, with the API of CBFS Connect 2020."""

__version__ = "0.1.0"
