"""Language models as judges: generative reward models that any part of rmkit can use like the others.

A judge is a TOML file (see `config`); `load_model("judge.toml")` and `load_judge` give it.
"""

from rmkit.judge.config import JudgeConfig, read_judge
from rmkit.judge.model import Context, Judge, Judged, load_judge
from rmkit.judge.tally import judging_lines, report_of

__all__ = ["Context", "Judge", "JudgeConfig", "Judged", "judging_lines", "load_judge", "read_judge", "report_of"]
