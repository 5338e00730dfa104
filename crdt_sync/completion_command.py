"""The command that prints a shell's completion. The only home of shtab."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

import shtab

from .commands import Commands, add_command

SHELLS: Final = ("bash", "zsh", "fish")


def add_parsers(commands: Commands, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Add `completion`, of all that is in `whole`."""

    def completion(*, shell: str) -> int:
        made = whole()
        _complete_files(made)
        print(shtab.complete(made, shell=shell))
        return 0

    command = add_command(
        commands,
        "completion",
        completion,
        help="print what completes commands in a shell",
        description="Print what has a shell complete crdt-sync's commands, options and file names when the tab key is pressed.",
        examples=[
            'eval "$(crdt-sync completion bash)"          # in ~/.bashrc',
            "crdt-sync completion zsh > ~/.zfunc/_crdt-sync  # with fpath+=~/.zfunc before compinit in ~/.zshrc",
            "crdt-sync completion fish > ~/.config/fish/completions/crdt-sync.fish",
        ],
    )
    command.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have options and arguments that are paths be completed by names of files."""
    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
