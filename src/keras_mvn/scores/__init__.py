"""Scores that compare predicted distributions with observed values, and one table of all of them.

A score is a function of a batch of distributions and of y, with one number per row; lower is
better. It is proper if, on average, no other distribution scores better than the true one.
"""

from keras_mvn.scores._cells import cell_log_score as cell_log_score
from keras_mvn.scores._conditional_error import conditional_error as conditional_error
from keras_mvn.scores._energy_score import energy_score as energy_score
from keras_mvn.scores._evaluate import evaluate as evaluate
from keras_mvn.scores._evaluation import Evaluation as Evaluation
from keras_mvn.scores._evaluation import Score as Score
from keras_mvn.scores._likelihood import dawid_sebastiani as dawid_sebastiani
from keras_mvn.scores._likelihood import log_score as log_score
from keras_mvn.scores._margins import crps as crps
from keras_mvn.scores._margins import interval_score as interval_score
from keras_mvn.scores._skill import Comparison as Comparison
from keras_mvn.scores._skill import mean_difference as mean_difference
from keras_mvn.scores._skill import skill_score as skill_score
from keras_mvn.scores._variogram_score import variogram_score as variogram_score

__all__ = [
    "Comparison",
    "Evaluation",
    "Score",
    "cell_log_score",
    "conditional_error",
    "crps",
    "dawid_sebastiani",
    "energy_score",
    "evaluate",
    "interval_score",
    "log_score",
    "mean_difference",
    "skill_score",
    "variogram_score",
]
