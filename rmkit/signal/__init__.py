"""What a trainer learns from, said once for every trainer: score -> verify -> mix -> shape -> place.

signal    Signal: the components, how they are joined, the chain that shapes a group, where a dataset's rows hold what
          is needed; the same in TOML, JSON and Python
mix       components joined to one number
columns   a dataset row's values by path
spans     values of parts of a completion, and those parts in a trainer's own tokens
"""

from rmkit.signal.columns import Columns
from rmkit.signal.signal import Signal
from rmkit.types import Span

__all__ = ["Columns", "Signal", "Span"]
