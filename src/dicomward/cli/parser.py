"""The parser of all commands: no abbreviations, the nearest known word after a typing error. Imports nothing heavy."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, Final

from dicomward.cli.examples import examples_of
from dicomward.vocab.nearest import nearest_name

# Options that many commands have; people write them in front of the command, or of its action, too.
_COMMON_WITH_VALUE: Final = ("--config", "--operator")
_COMMON: Final = (*_COMMON_WITH_VALUE, "--json")


class _Formatter(argparse.HelpFormatter):
    """Fills paragraphs, but leaves examples as one types them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """No abbreviations: a script that works today must not become ambiguous with the next option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": _Formatter, **kwargs})
        self.epilog = self.epilog or examples_of(self.prog)
        self._words: Sequence[str] = ()

    # Any: the types of argparse, which overloads this.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unknown words end here, where the options that could have been meant are known."""
        self._words = () if args is None else tuple(args)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> Any:  # NoReturn; Any, as the class above is typed
        """Print the usage and what is wrong, and exit with 2."""
        super().error(f"{message}{''.join(self._hints())}")

    def _hints(self) -> Iterable[str]:
        """Give the options that were meant; an option that is missing may only be misspelt."""
        known = [each for each in self._option_string_actions if each.startswith("--")]
        for word in self._words:
            option = word.partition("=")[0]
            if word == "--":
                return
            if option.startswith("--") and option not in known:
                near = nearest_name(option, known)
                if near is not None:
                    yield f"; for {option}, did you mean {near}?"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is no choice, and name the nearest command; an option has few choices, and all are named."""
        choices = None if action.choices is None else [str(each) for each in action.choices]
        if action.choices is None or choices is None or value in action.choices:
            return
        near = None
        if not action.option_strings:
            near = nearest_name(str(value), [each for each in choices if " " not in each])
        hint = f"did you mean {near!r}?" if near else f"the known ones are {', '.join(choices)}"
        raise argparse.ArgumentError(action, f"there is no {value!r}; {hint}")


def common_options_last(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the common options that stand in front of the command or its action at the end.

    Without a command nothing is left of them.
    """
    front: list[str] = []
    words: list[str] = []
    rest = list(arguments)
    for _ in ("command", "action"):
        while rest and rest[0].partition("=")[0] in _COMMON:
            takes_next = rest[0] in _COMMON_WITH_VALUE
            front += rest[: 1 + takes_next]
            del rest[: 1 + takes_next]
        if not rest or rest[0].startswith("-"):
            break
        words.append(rest.pop(0))
    if not words and not rest:
        return []
    # What follows -- are no options.
    end = rest.index("--") if "--" in rest else len(rest)
    return [*words, *rest[:end], *front, *rest[end:]]
