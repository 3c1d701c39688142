"""Penalties on a predicted covariance, passed to any loss as `regularizer=`.

Each penalty is a subclass of `CovarianceRegularizer` in its own file. It gives one number per row
(in nats if it is a log prior or a divergence), added before weights and reduction apply: a
strength is per row and does not decrease with the number of rows unless the penalty takes `rows`.

| penalty | pulls toward | depends on the units of y |
| --- | --- | --- |
| `CovarianceL1`, `CovarianceL2` | zeros off the diagonal: uncorrelated or conditionally independent targets | only with `on="covariance"` or `"precision"` |
| `LKJ`, `ConditionNumber` | uncorrelated targets; standard deviations are unaffected | no |
| `Shrinkage`, `InverseWishart` | a covariance matrix, or the prediction's own diagonal | the target matrix has units |
| `HalfLogDet` | small (or large) volumes | no: units shift the value by a constant |

On small tables (three real data sets, 64 or 128 training rows, ten splits each; all figures are in
benchmarks/results/penalties.md), `Shrinkage.from_targets(y, 0.1)` and `HalfLogDet(-0.2)` lowered
the test negative log-likelihood on 7 to 9 of the 10 splits of every table, by medians of 0.001 to
0.034 nats per target, though single splits lost up to 0.2. Shrinkage toward Ledoit–Wolf with a
strength of 1 gained 0.03 on air quality and gave mixed results elsewhere; a diagonal target helped
on some tables and hurt on others. `CovarianceL1`, `CovarianceL2`, `LKJ` and `ConditionNumber` are
unproven: their medians are within about 0.01 of no penalty, or worse. Use them if you want sparse
or well-conditioned matrices.
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
