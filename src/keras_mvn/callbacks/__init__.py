"""Keras callbacks that monitor, guard and schedule the training of a covariance.

Order matters in `fit(callbacks=[…])`: callbacks that write to the logs (`CovarianceMonitor`,
`BetaAnnealing`) come before those that read them (`keras.callbacks.EarlyStopping`, `CSVLogger`).
`NonFiniteGuard` comes first, so that no other callback saves or evaluates non-finite weights.

All of them work with `keras.callbacks.BackupAndRestore`. Keras backs up the weights, the optimizer
and the epoch number. So after a kill in the middle of an epoch, training resumes to exactly the
same weights if each epoch depends only on its number and on the weights:

* `save_freq="epoch"`: from a backup in mid-epoch, the epoch would restart at its first batch;
* row order: `shuffle=False`, with a `keras.utils.PyDataset` that permutes rows with a generator
  seeded with the epoch number (set in `on_epoch_begin`);
* dropout and other noise: Keras does not save its seeds, so set them when an epoch begins:
  `keras.utils.set_random_seed(epoch)` for PyTorch, and for the other backends
  `layer.seed_generator.state.assign([epoch, 0])`.
"""

from keras_mvn.callbacks.guard import NonFiniteGuard as NonFiniteGuard
from keras_mvn.callbacks.guard import NonFiniteWarning as NonFiniteWarning
from keras_mvn.callbacks.monitor import CovarianceMonitor as CovarianceMonitor
from keras_mvn.callbacks.overfitting import OverfittingWarning as OverfittingWarning
from keras_mvn.callbacks.overfitting import WarnOnOverfitting as WarnOnOverfitting
from keras_mvn.callbacks.schedules import BetaAnnealing as BetaAnnealing
from keras_mvn.callbacks.schedules import MeanWarmUp as MeanWarmUp

__all__ = [
    "BetaAnnealing",
    "CovarianceMonitor",
    "MeanWarmUp",
    "NonFiniteGuard",
    "NonFiniteWarning",
    "OverfittingWarning",
    "WarnOnOverfitting",
]
