"""Penalties on a predicted covariance, given to any loss as `regularizer=`.

One penalty is one file over `CovarianceRegularizer`. Each is a number per row, in nats where it
is a log prior or a divergence, that is added before weights and reduction apply: a strength is
per row and does not fall with the number of rows unless the penalty takes `rows`.

| penalty | pulls towards | units of y |
| --- | --- | --- |
| `CovarianceL1`, `CovarianceL2` | zeros off the diagonal: uncorrelated targets, or conditionally independent ones | only with `on="covariance"` or `"precision"` |
| `LKJ`, `ConditionNumber` | uncorrelated targets, standard deviations left alone | no |
| `Shrinkage`, `InverseWishart` | a covariance matrix, or the prediction's own diagonal | the target's |
| `HalfLogDet` | small (or large) volumes | no: they shift the value by a constant |

On small tables (three real ones, 64 or 128 training rows, ten splits each; all figures in
benchmarks/results/penalties.md): `Shrinkage.from_targets(y, 0.1)` and `HalfLogDet(-0.2)` lowered
the test negative log-likelihood on 7 to 9 splits of 10 of every table, by medians of 0.001 to
0.034 nats per target, though single splits lost up to 0.2. A strength of 1 towards Ledoit–Wolf
gained 0.03 on air quality and was mixed elsewhere; a diagonal target helped some tables and hurt
others. `CovarianceL1`, `CovarianceL2`, `LKJ` and `ConditionNumber` are unproven: medians within
about 0.01 of no penalty, or worse. They are for those who want sparse or well-conditioned
matrices.
"""  # noqa: E501 - a table

from keras_mvn.regularizers.base import CovarianceRegularizer as CovarianceRegularizer
from keras_mvn.regularizers.base import get as get
from keras_mvn.regularizers.condition_number import ConditionNumber as ConditionNumber
from keras_mvn.regularizers.covariance_l1 import CovarianceL1 as CovarianceL1
from keras_mvn.regularizers.covariance_l2 import CovarianceL2 as CovarianceL2
from keras_mvn.regularizers.half_log_det import HalfLogDet as HalfLogDet
from keras_mvn.regularizers.inverse_wishart import InverseWishart as InverseWishart
from keras_mvn.regularizers.lkj import LKJ as LKJ
from keras_mvn.regularizers.shrinkage import Shrinkage as Shrinkage

__all__ = [
    "LKJ",
    "ConditionNumber",
    "CovarianceL1",
    "CovarianceL2",
    "CovarianceRegularizer",
    "HalfLogDet",
    "InverseWishart",
    "Shrinkage",
    "get",
]
