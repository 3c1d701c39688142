"""Reading tables from files in batches, inferring what their columns are, and preparing them.

CSV, TSV, Parquet and Feather are supported, including files larger than memory. `open_table` opens
a file; `survey` and `plan` inspect it and decide how to use it; `write_arrays` writes the arrays
that a network trains on; `Preprocessing` applies the same steps to any later table.
"""

from keras_mvn.tables.cells import Cells as Cells
from keras_mvn.tables.clock import Clock as Clock
from keras_mvn.tables.column_names import columns_named as columns_named
from keras_mvn.tables.dates import DateReading as DateReading
from keras_mvn.tables.deciding import Decision as Decision
from keras_mvn.tables.errors import TableError as TableError
from keras_mvn.tables.lags import LaggedTable as LaggedTable
from keras_mvn.tables.lags import Lags as Lags
from keras_mvn.tables.lags import lagged as lagged
from keras_mvn.tables.lags import lags_of as lags_of
from keras_mvn.tables.planning import Plan as Plan
from keras_mvn.tables.planning import Survey as Survey
from keras_mvn.tables.planning import plan as plan
from keras_mvn.tables.planning import survey as survey
from keras_mvn.tables.planning import write_arrays as write_arrays
from keras_mvn.tables.preprocessing import Preprocessing as Preprocessing
from keras_mvn.tables.question import Question as Question
from keras_mvn.tables.reading import open_table as open_table
from keras_mvn.tables.splitting import Split as Split
from keras_mvn.tables.splitting import shares as shares
from keras_mvn.tables.table import Table as Table
from keras_mvn.tables.text import Reading as Reading

__all__ = [
    "Cells",
    "Clock",
    "DateReading",
    "Decision",
    "LaggedTable",
    "Lags",
    "Plan",
    "Preprocessing",
    "Question",
    "Reading",
    "Split",
    "Survey",
    "Table",
    "TableError",
    "columns_named",
    "lagged",
    "lags_of",
    "open_table",
    "plan",
    "shares",
    "survey",
    "write_arrays",
]
