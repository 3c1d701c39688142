"""`keras-mvn fit`, step by step: the table, the training, the results, the report."""

__all__: list[str] = []
