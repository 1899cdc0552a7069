"""Language models as judges: generative reward models that any part of rmkit can use like the others.

A judge is a TOML file (see `config`); `load_model("judge.toml")` and `load_judge` give it.
"""

import sys
from types import ModuleType
from typing import Any

from rmkit.judge.config import JudgeConfig, read_judge
from rmkit.judge.judged import (
    Judged,
)
from rmkit.judge.model import (
    Context,
    Judge,
    load_judge,
)
from rmkit.judge.tally import judging_lines, report_of

__all__ = ["Context", "Judge", "JudgeConfig", "Judged", "judging_lines", "load_judge", "read_judge", "report_of"]


class _Callable(ModuleType):
    """`rmkit.judge(...)` is the front door's function, though importing this package puts it under the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from rmkit.judge.command import judge

        return judge(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
