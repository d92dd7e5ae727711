"""How well a BLT predicts a dataset, and how far that can be believed.

The names below are loaded when they are first used, so that a command's settings bring no torch with them.
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltmodel.evaluation.config import EvaluationConfig
    from bltmodel.evaluation.evaluator import evaluate
    from bltmodel.evaluation.noise import add_noise
    from bltmodel.evaluation.report import Evaluation
    from bltmodel.evaluation.sections import to_markdown

__all__ = ["Evaluation", "EvaluationConfig", "add_noise", "evaluate", "to_markdown"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Evaluation": "bltmodel.evaluation.report",
        "EvaluationConfig": "bltmodel.evaluation.config",
        "add_noise": "bltmodel.evaluation.noise",
        "evaluate": "bltmodel.evaluation.evaluator",
        "to_markdown": "bltmodel.evaluation.sections",
    },
)
