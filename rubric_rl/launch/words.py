"""A slime command line as plain words: what a flag was given, the last word winning, without slime (all stages)."""

from rubric_rl.errors import UserError


class Words:
    """The flags of a command line and their values, by name without dashes. A later flag wins, as with argparse."""

    def __init__(self, argv: list[str]):
        """Raises UserError for a word before the first flag."""
        self.values: dict[str, list[str]] = {}
        name = None
        for word in argv:
            if word.startswith("--"):
                name, equals, value = word.removeprefix("--").partition("=")
                self.values[name] = [value] if equals else []
            elif name is None:
                raise UserError(f"{word!r} belongs to no flag; flags begin with --")
            else:
                self.values[name].append(word)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag, or the default where it is not given."""
        values = self.values.get(name)
        return values[0] if values else default

    def number(self, name: str, default: float = 0) -> int | float:
        """The value as a number, whole where it is written so; raises UserError for anything else."""
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            raise UserError(f"--{name} {text}: not a number") from None
