"""The command that makes lines of the file of users and tokens."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from dicomnode.cli.console import errors, output
from dicomnode.errors import Refused
from dicomnode.web.accounts import Role, password_line, token_line


def web_user(
    name: Annotated[str, typer.Argument(help="Name of the person, or of the program that gets a token.")],
    role: Annotated[Role, typer.Option(help="What it may: see counts, see everything, act.")] = Role.VIEWER,
    token: Annotated[
        bool, typer.Option("--token", help="Make a bearer token instead of asking for a password.")
    ] = False,
) -> None:
    """Print a line for the file that `web.users` names. The password is asked for, or read from stdin."""
    try:
        if token:
            secret, line = token_line(name, role)
            errors.print(f"the token, which is shown once and stored nowhere: {secret}", markup=False)
        else:
            line = password_line(name, role, _ask())
    except ValueError as error:
        raise Refused(str(error)) from None
    output.print(line, markup=False)


def _ask() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ValueError("the two passwords differ")
    return password
