"""How estimator and command train: data, recipe, callbacks, backups, ensembles of networks."""

__all__: list[str] = []
