"""The command line."""

from dicomnode.cli.app import app, main

__all__ = ["app", "main"]
