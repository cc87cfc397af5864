"""How commands explain themselves: in groups, with words for what a value is, and choices that complete.

How it works: a command's `rich_help_panel` is the group it is listed in, an option's the heading it stands
under; both are typer's own words for it, shown here without rich, which takes longer to import than all else.
What an option takes is called by `VALUES` where nothing better is said (`metavar`), an argument is called by
its name in capitals, and limits and defaults are said in words. `one_of` is for options with few values: they
are listed in the help, and the shell completes them.

What it does not know: which values are right. That is each setting's own affair, and told by its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from maskmill.flows.report import console

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter, Parameter

VALUES: dict[object, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
OPTIONS = "Options"


def one_of(*names: str) -> dict[str, Any]:
    """What `typer.Option` is told of an option that takes one of few values: listed, and completed."""
    return {"metavar": "|".join(names), "autocompletion": completer(names)}


def completer(names: Sequence[str] | Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What the shell completes a value to, for `autocompletion`.

    Args:
        names: all of them, or what fetches them once the shell asks.
    """

    def matching(incomplete: str) -> list[str]:
        """The names that begin so."""
        return [name for name in (names() if callable(names) else names) if name.startswith(incomplete)]

    return matching


class Command(TyperCommand):
    """A command whose help reads as sentences, and whose errors call an argument what the help calls it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for argument in _arguments(self.params):
            argument.metavar = _name(argument)

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """DATASET, [DATASET] where it may be left out, INPUT... where there may be more."""
        return [*(_placed(one) for one in _arguments(self.params)), *_options_told(self.params)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Arguments, then options under their headings."""
        write_parameters(self.get_params(ctx), ctx, formatter)


class Commands(TyperGroup):
    """Commands in groups: the one they name as their panel, in the order they come."""

    def invoke(self, ctx: Context) -> Any:
        """Runs a command; Ctrl-C where it doesn't answer for that itself, or at a question, ends it here.

        Raises:
            typer.Exit: after Ctrl-C, with exit code 130.
        """
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, typer.Abort):
            typer.echo("\nstopped", err=True)
            raise typer.Exit(console.INTERRUPTED) from None

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Commands first: they are what is looked for."""
        self.format_commands(ctx, formatter)
        write_parameters(self.get_params(ctx), ctx, formatter)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """A heading a group, each command with its first sentence, whole."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                said = command.get_short_help_str(limit=1000).removesuffix(".")
                groups.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, said))

        longest = max((len(name) for rows in groups.values() for name, _ in rows), default=0)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(longest), said) for name, said in rows])


def write_parameters(params: Iterable[Parameter], ctx: Context, formatter: HelpFormatter) -> None:
    """Arguments and options as a help page lists them."""
    params = list(params)
    arguments = [(_name(one), _told(one, ctx)) for one in _arguments(params)]
    if arguments:
        with formatter.section("Arguments"):
            formatter.write_dl(arguments)

    headings: dict[str, list[tuple[str, str]]] = {}
    for option in params:
        if isinstance(option, TyperOption) and not option.hidden:
            heading = option.rich_help_panel or ("Output" if option.name == "help" else OPTIONS)
            headings.setdefault(heading, []).append((_written(option), _told(option, ctx)))
    for heading, rows in headings.items():
        with formatter.section(heading):
            formatter.write_dl(rows)


def _arguments(params: Iterable[Parameter]) -> list[TyperArgument]:
    return [one for one in params if isinstance(one, TyperArgument) and not one.hidden]


def _options_told(params: Iterable[Parameter]) -> list[str]:
    """The options that cannot be left out, then that there are others."""
    needed = [one for one in params if isinstance(one, TyperOption) and one.required]
    return [*(f"{max(one.opts, key=len)} {_value(one)}" for one in needed), "[OPTIONS]"]


def _placed(argument: TyperArgument) -> str:
    """An argument as the usage line has it."""
    name = _name(argument) + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def _name(argument: TyperArgument) -> str:
    return argument.metavar or argument.name.upper()


def _written(option: TyperOption) -> str:
    """An option as it is typed."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.is_flag:
        return " / ".join([names, *option.secondary_opts])
    return f"{names} {_value(option)}"


def _value(option: TyperOption) -> str:
    """What an option takes."""
    if option.metavar is not None:
        return option.metavar
    told = option.type_descriptor
    if told.is_path:
        return {"file": "FILE", "dir": "FOLDER"}.get(str(told.path_type), "PATH")
    return VALUES.get(told.annotation, "TEXT")


def _told(param: TyperArgument | TyperOption, ctx: Context) -> str:
    """Its help, then its limits, default and variable in words."""
    notes = [_limits(param), _default(param, ctx)]
    if isinstance(param, TyperOption) and param.required:
        notes.append("required")
    if param.envvar and param.show_envvar:
        notes.append(f"or the variable {param.envvar}")
    said = "; ".join(note for note in notes if note)
    return " ".join(text for text in (param.help or "", f"({said})" if said else "") if text)


def _limits(param: TyperArgument | TyperOption) -> str:
    low, high = param.min, param.max
    if high is None:
        return f"at least {low:g}" if low and low != 1 else ""
    return f"{low:g} to {high:,g}" if low is not None else f"at most {high:,g}"


def _default(param: TyperArgument | TyperOption, ctx: Context) -> str:
    """The default where it says something: flags are off, and what is None is told by the help."""
    value = param.get_default(ctx, call=False)
    if param.required or param.show_default is False or value in (None, "", False, [], ()):
        return ""
    if isinstance(param, TyperOption) and param.is_flag:
        return f"default {param.opts[0]}" if param.secondary_opts else ""
    return f"default {value:g}" if isinstance(value, float) else f"default {value}"
