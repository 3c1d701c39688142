"""The steps of `keras-mvn fit`: the table, the training, the results, the report."""

__all__: list[str] = []
