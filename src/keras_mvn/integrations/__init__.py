"""Tools that teams already use: MLflow for logging and serving, Optuna for tuning.

`mlflow_model.log_model` and `log_fit` log what was fitted; `optuna_search.suggest` and `pruning`
are a search space for the estimator and early ends of trials that go nowhere. Each needs its own
package: `pip install "keras-mvn[mlflow]"`, `pip install "keras-mvn[optuna]"`.
"""

from keras_mvn.integrations.mlflow_model import log_fit as log_fit
from keras_mvn.integrations.mlflow_model import log_model as log_model
from keras_mvn.integrations.optuna_search import pruning as pruning
from keras_mvn.integrations.optuna_search import suggest as suggest

__all__ = ["log_fit", "log_model", "pruning", "suggest"]
