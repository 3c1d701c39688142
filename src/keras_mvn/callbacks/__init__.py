"""Keras callbacks that watch, guard and schedule the training of a covariance.

Order matters in `fit(callbacks=[…])`: what writes into the logs (`CovarianceMonitor`,
`BetaAnnealing`) comes before what reads them (`keras.callbacks.EarlyStopping`, `CSVLogger`);
`NonFiniteGuard` comes first, so that nobody saves or judges weights that are not finite.

`keras.callbacks.BackupAndRestore` goes with all of them. After a kill in the middle of an epoch,
training resumes to exactly the same weights if each epoch depends on its number and the weights
alone, for what Keras backs up is weights, optimizer and epoch:

* `save_freq="epoch"`: from a backup in mid-epoch the epoch begins again with its first batch;
* the order of rows: `shuffle=False`, with a `keras.utils.PyDataset` that permutes rows by a
  generator seeded with the epoch's number (set in an `on_epoch_begin`);
* dropout and other noise: Keras does not save its seeds, so set them as an epoch begins:
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
