"""What `import rmkit` offers, for type checkers; at run time `__init__.py` finds it by the table in `plugins.py`."""

from data_pipelines.front import ingest as ingest
from data_pipelines.front import run_recipe as run_recipe
from evaluation.front import compare as compare
from evaluation.front import evaluate as evaluate
from rmkit.errors import RmkitError as RmkitError
from rmkit.judge.command import judge as judge
from rmkit.models import load_model as load_model
from rmkit.serve.clients.chat_values import candidates as candidates
from rmkit.serve.front import serve_app as serve_app
from rmkit.training.front import train as train
from rmkit.types import Candidates as Candidates
from rmkit.types import Comparison as Comparison
from rmkit.types import Completion as Completion
from rmkit.types import Message as Message
from rmkit.types import RewardModel as RewardModel
from rmkit.types import Score as Score
from warehouse.versions.dataset import Dataset as Dataset
from warehouse.versions.dataset import load_dataset as load_dataset

__version__: str
