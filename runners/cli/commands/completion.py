"""Completion of commands, options, recipes and runs.

bash:  eval "$(recipe completion bash)"                              in ~/.bashrc
zsh:   eval "$(recipe completion zsh)"                               in ~/.zshrc
fish:  recipe completion fish > ~/.config/fish/completions/recipe.fish
"""

from __future__ import annotations

import argparse

import argcomplete
import argcomplete.shell_integration

from runners.cli import COMMANDS, Parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(options: argparse.Namespace) -> int:
    print(argcomplete.shell_integration.shellcode(["recipe"], shell=options.shell))
    return 0


def answer() -> None:
    """Answer the shell that asks for completions, and end."""
    import importlib

    parser = Parser(prog="recipe", allow_abbrev=False)
    commands = parser.add_subparsers()
    for name, what in COMMANDS.items():
        importlib.import_module(f"runners.cli.commands.{name}").add_arguments(commands.add_parser(name, help=what))
    argcomplete.autocomplete(parser)
