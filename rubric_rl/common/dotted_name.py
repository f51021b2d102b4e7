"""The function that a dotted name such as self_reward_rm.reward stands for."""

import importlib
from collections.abc import Callable

from rubric_rl.common.errors import UserError
from rubric_rl.common.plain_text import one_line


def import_function(dotted_name: str) -> Callable:
    """Imports the function.

    Raises UserError with the reason alone, in one line: the caller knows which flag named it and
    what to do.
    """
    module, _, name = dotted_name.rpartition(".")
    if not module:
        raise UserError("no module is named, as in module.function")
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the user's own module may raise anything
        raise UserError(one_line(f"{type(error).__name__}: {error}")) from None
    if not callable(function):
        raise UserError("not a function")
    return function
