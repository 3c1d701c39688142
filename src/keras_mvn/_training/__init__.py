"""How estimator and command train: data, recipe, callbacks, backups, ensembles of networks."""
