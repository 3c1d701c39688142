"""Training by the estimator and the command: data, recipe, callbacks, backups, ensembles."""

__all__: list[str] = []
