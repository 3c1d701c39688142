"""Training several models of one architecture in one pass: `jax.vmap` over Keras' own steps.

On JAX, a training step in Keras is a function of its state, `model.train_step(state, data)`.
Stacking the variables of k members and mapping that function over them trains all members at
once, by the same code that trains one, including losses of layers, metrics, loss scaling, dropout
and batch normalization. An epoch is one compiled call.

This module imports JAX, and is imported only if that is the backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Tensor
from keras_mvn.ensemble._job import Job, Snapshot

__all__ = ["NotVectorizableError", "train"]

jax = require("jax", "training all members in one pass")

History = dict[str, list[float]]

SUPPORTED_OPTIONS = {"sample_weight", "shuffle", "validation_batch_size"}
"""Further arguments of `keras.Model.fit` that are supported here."""


class NotVectorizableError(Exception):
    """Raised if members, or a call of `fit`, cannot be trained in one pass; explains why."""


def train(
    members: Sequence[Any],
    job: Job,
    seeds: Sequence[int],
    report: Callable[[int, History], None],
) -> list[History]:
    """Train all members at once, each with its own shuffles and its own early stopping.

    This does what Keras does for one member after another, batch by batch: the same seeds give the
    same weights, up to rounding. A member that has stopped is frozen, but still computed; the whole
    table is held on the device.

    Args:
        members: compiled models.
        job: training job.
        seeds: seeds of the members' shuffles.
        report: called with a member's number and history when it has stopped.

    Returns:
        The members' histories, as in `keras.callbacks.History`.

    Raises:
        NotVectorizableError: the members cannot be trained in one pass; nothing was trained.

    """
    _refuse_the_unsupported(members, job)
    training, validation = _tables(job)
    _build(members, training, seeds)
    _require_one_program(members, training)
    run = _Run(members, training, validation, job)
    return run.train(seeds, report)


# --- what cannot be vectorized ------------------------------------------------------------------


def _refuse_the_unsupported(members: Sequence[Any], job: Job) -> None:
    unknown = sorted(
        name
        for name, value in job.options.items()
        if value is not None and name not in SUPPORTED_OPTIONS
    )
    if unknown:
        raise NotVectorizableError(f"fit was given {', '.join(unknown)}")
    if job.options.get("shuffle", True) not in (True, False):
        raise NotVectorizableError(f"shuffle={job.options['shuffle']!r} is neither True nor False")
    if keras.distribution.distribution() is not None:
        raise NotVectorizableError("a keras.distribution is active")
    for member in members:
        if type(member).fit is not keras.Model.fit:
            raise NotVectorizableError(f"{type(member).__name__} overrides fit")
        if member.run_eagerly or not member.jit_compile:
            raise NotVectorizableError("the members were compiled without jit_compile")


def _tables(job: Job) -> tuple[Any, Any]:
    """Return training and validation data on the device, (x, y, sample_weight) as for Keras."""
    training = (job.x, job.y, job.options.get("sample_weight"))
    if job.validation_data is None:
        return _on_device(training, "x, y and sample_weight"), None
    if not isinstance(job.validation_data, tuple | list) or len(job.validation_data) not in (2, 3):
        raise NotVectorizableError("validation_data is not a tuple of arrays")
    validation = (*job.validation_data, None)[:3]
    return (
        _on_device(training, "x, y and sample_weight"),
        _on_device(validation, "validation_data"),
    )


def _on_device(table: Any, name: str) -> Any:
    """Convert arrays as Keras' own data adapter does, with floats in floatx."""

    def convert(leaf: Any) -> Any:
        if leaf is None:
            return None
        array = np.asarray(leaf) if _is_array(leaf) else None
        if array is None or array.ndim == 0 or array.dtype.kind not in "fiub":
            raise NotVectorizableError(f"{name} hold a {type(leaf).__name__}, not numeric arrays")
        return jax.numpy.asarray(
            array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array
        )

    converted = keras.tree.map_structure(convert, table)
    if len({len(leaf) for leaf in jax.tree.leaves(converted)}) != 1:
        raise NotVectorizableError(f"{name} differ in their number of rows")
    return converted


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or bool(keras.ops.is_tensor(leaf))


def _build(members: Sequence[Any], training: Any, seeds: Sequence[int]) -> None:
    """Create the variables of optimizers, losses and metrics, as `fit` does before training."""
    x, y, sample_weight = _first_rows(training, 1)
    for member, seed in zip(members, seeds, strict=True):
        keras.utils.set_random_seed(seed)
        member.fit(x, y, sample_weight=sample_weight, epochs=0, shuffle=False, verbose=0)
        member.reset_metrics()


def _first_rows(table: Any, rows: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[:rows], table)


def _require_one_program(members: Sequence[Any], training: Any) -> None:
    """Check that all members have the same training step, since the first one's is used for all.

    Any difference between members (layers, rates, penalties, loss, optimizer, numbers that a layer
    or a loss holds outside of variables) is in the program that JAX traces, or in its constants.
    """
    batch = _first_rows(training, 8)
    program, constants = _traced_step(members[0], batch)
    for i, member in enumerate(members[1:], start=1):
        others_program, others_constants = _traced_step(member, batch)
        if others_program != program:
            raise NotVectorizableError(
                f"the training step of member {i} differs from that of member 0: their layers, "
                "losses or optimizers are not alike"
            )
        if not _equal(others_constants, constants):
            raise NotVectorizableError(
                f"member {i} has different numbers outside its variables than member 0 (for "
                "example, a Normalization adapted to other data)"
            )


def _traced_step(model: Any, batch: Any) -> tuple[str, list[Any]]:
    """Return the training step as JAX traces it, and the constants in it."""
    state = (*_state(model), _values(model.metrics_variables))
    try:
        traced = jax.make_jaxpr(model.train_step)(state, batch)
        constants = [np.asarray(constant) for constant in _constants(traced)]
    except Exception as error:  # layers, losses and steps that JAX cannot trace fail in many ways
        raise NotVectorizableError(f"JAX cannot trace the training step: {error}") from error
    return re.sub(r"0x[0-9a-f]+", "", str(traced)), constants


def _constants(node: Any) -> Iterator[Any]:
    """Yield all arrays in a traced program and in programs nested in it."""
    if hasattr(node, "jaxpr"):
        yield from node.consts
        yield from _constants(node.jaxpr)
    elif hasattr(node, "eqns"):
        for equation in node.eqns:
            yield from (v.val for v in equation.invars if hasattr(v, "val"))
            for parameter in equation.params.values():
                yield from _constants(parameter)
    elif isinstance(node, tuple | list):
        for part in node:
            yield from _constants(part)


def _equal(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other, strict=True)
    )


def _state(model: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return trainable, non-trainable and optimizer variables, as training steps take them."""
    return (
        _values(model.trainable_variables),
        _values(model.non_trainable_variables),
        _values(model.optimizer.variables),
    )


def _averages(optimizer: Any) -> list[int]:
    """Return positions of the weights' moving averages among the variables of the optimizer."""
    at = {id(variable): i for i, variable in enumerate(optimizer.variables)}
    return [at[id(variable)] for variable in optimizer._model_variables_moving_average]


def _values(variables: Sequence[Any]) -> list[Tensor]:
    return [variable.value for variable in variables]


# --- the pass -----------------------------------------------------------------------------------


class _Run:
    """One training run of all members: stacked state and the compiled epoch."""

    def __init__(self, members: Sequence[Any], training: Any, validation: Any, job: Job) -> None:
        self.members, self.job = members, job
        self.training, self.validation = training, validation
        self.rows = len(jax.tree.leaves(training)[0])
        self.metrics = _values(members[0].metrics_variables)
        self.average_at = _averages(members[0].optimizer) if job.averaged else None
        self.validated = _validated(len(members), validation, job)
        self.variables = self.best = _stacked([_state(member) for member in members])
        self.epoch = self._compiled_epoch()
        self.chosen = jax.jit(_chosen)

    def _compiled_epoch(self) -> Any:
        some = np.zeros((len(self.members), self.rows), np.int32)
        orders = some if self.job.orders is None else self.job.orders(0).astype(np.int32)
        mapped = jax.vmap(self._epoch, in_axes=(0, None, None, 0, 0))
        data = (self.training, self.validation, orders, self.validated)
        try:
            traced = jax.jit(mapped).lower(self.variables, *data)
        except Exception as error:  # layers and losses that JAX cannot map fail in many ways
            raise NotVectorizableError(
                f"JAX cannot map the training step over members: {error}"
            ) from error
        return traced.compile()

    def _epoch(
        self, variables: Any, training: Any, validation: Any, order: Any, validated: Any
    ) -> Any:
        """Run one member's epoch as Keras does: training batches, then validation batches."""
        model, batch = self.members[0], self.job.batch_size or 32
        state = (*variables, self.metrics)
        logs, (trainable, non_trainable, optimizer, _) = _over_batches(
            model.train_step, state, training, order, batch
        )
        if validation is not None:
            state = (self._kept(trainable, optimizer), non_trainable, self.metrics)
            batch = self.job.options.get("validation_batch_size") or batch
            found, (_, non_trainable, _) = _over_batches(
                model.test_step, state, validation, validated, batch
            )
            logs = {**logs, **{f"val_{name}": value for name, value in found.items()}}
        return (trainable, non_trainable, optimizer), logs

    def _kept(self, trainable: Any, optimizer: Any) -> Any:
        """Return the weights to validate and keep: their averages, if the job asks for these."""
        return trainable if self.average_at is None else [optimizer[i] for i in self.average_at]

    def _snapshot(self, epoch: int, stopping: _EarlyStopping, histories: list[History]) -> Snapshot:
        variables, best = (
            [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
            for tree in (self.variables, self.best)
        )
        return Snapshot(epoch, variables, best, stopping.to_json(), histories)

    def _go_on_from(self, start: Snapshot, stopping: _EarlyStopping) -> None:
        structure = jax.tree.structure(self.variables)
        self.variables, self.best = (
            jax.tree.unflatten(structure, [jax.numpy.asarray(leaf) for leaf in leaves])
            for leaves in (start.variables, start.best)
        )
        stopping.go_on_from(start.stopping)

    def train(self, seeds: Sequence[int], report: Callable[[int, History], None]) -> list[History]:
        stopping = _EarlyStopping(len(self.members), self.job.patience)
        # The generators that Keras' data adapter uses after `keras.utils.set_random_seed(seed)`.
        generators = [np.random.RandomState(seed) for seed in seeds]
        histories: list[History] = [{} for _ in self.members]
        first = 0
        if self.job.start is not None:
            first, histories = self.job.start.epoch, self.job.start.histories
            self._go_on_from(self.job.start, stopping)
        try:
            for epoch in range(first, self.job.epochs):
                running = stopping.running
                logs = self._train_epoch(epoch, generators, stopping, histories)
                for i in np.flatnonzero(running & ~stopping.running):
                    report(int(i), histories[i])
                if not stopping.running.any() or self._ends(epoch, logs, stopping, histories):
                    break
        finally:  # also for what an interrupted training has learned
            self._hand_back(stopping)
        for i in np.flatnonzero(stopping.running):
            report(int(i), histories[i])
        return histories

    def _train_epoch(
        self,
        epoch: int,
        generators: Sequence[np.random.RandomState],
        stopping: _EarlyStopping,
        histories: list[History],
    ) -> dict[str, np.ndarray]:
        if self.job.orders is None:
            orders = np.stack([self._order(generator) for generator in generators])
        else:
            orders = self.job.orders(epoch).astype(np.int32)
        data = (self.training, self.validation, orders, self.validated)
        after, logs = self.epoch(self.variables, *data)
        self.variables = self.chosen(stopping.running, after, self.variables)
        numbers = {name: np.asarray(values) for name, values in logs.items()}
        for i in np.flatnonzero(stopping.running):
            for name, values in numbers.items():
                histories[i].setdefault(name, []).append(values[i].tolist())
        trainable, non_trainable, optimizer = self.variables
        kept = (self._kept(trainable, optimizer), non_trainable, optimizer)
        self.best = self.chosen(stopping.update(epoch, numbers), kept, self.best)
        return numbers

    def _ends(
        self,
        epoch: int,
        logs: dict[str, np.ndarray],
        stopping: _EarlyStopping,
        histories: list[History],
    ) -> bool:
        """Return whether the job ends training after this epoch."""
        if self.job.after_epoch is None:
            return False
        return self.job.after_epoch(logs, lambda: self._snapshot(epoch + 1, stopping, histories))

    def _order(self, generator: np.random.RandomState) -> Any:
        if self.job.options.get("shuffle", True):
            return generator.permutation(self.rows).astype(np.int32)
        return np.arange(self.rows, dtype=np.int32)

    def _hand_back(self, stopping: _EarlyStopping) -> None:
        """Assign the members' variables, in the order in which `fit` and its callback do."""
        if not self.job.epochs:
            return
        for i, member in enumerate(self.members):
            trainable, non_trainable, optimizer = _slice(self.variables, i)
            _assign(member.trainable_variables, trainable)
            _assign(member.non_trainable_variables, non_trainable)
            _assign(member.optimizer.variables, optimizer)
            member.optimizer.finalize_variable_values(member.trainable_weights)
            if stopping.patience is not None:
                trainable, non_trainable, _ = _slice(self.best, i)
                _assign(member.trainable_variables, trainable)
                _assign(member.non_trainable_variables, non_trainable)


class _EarlyStopping:
    """`keras.callbacks.EarlyStopping(patience=…, restore_best_weights=True)` for each member."""

    def __init__(self, k: int, patience: int | None) -> None:
        self.patience = patience
        self.running = np.ones(k, bool)
        self._best = np.full(k, np.inf)
        self._waited = np.zeros(k, int)

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "running": self.running.tolist(),
            "best": self._best.tolist(),
            "waited": self._waited.tolist(),
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Restore the state that `to_json` returned."""
        self.running = np.array(state["running"], bool)
        self._best = np.array(state["best"], float)
        self._waited = np.array(state["waited"], int)

    def update(self, epoch: int, logs: dict[str, Any]) -> Any:
        """Stop members whose patience is over; return which have their best weights so far (k,)."""
        if self.patience is None:
            return np.zeros_like(self.running)
        better = self.running & (logs["val_loss"] < self._best)
        self._best = np.where(better, logs["val_loss"], self._best)
        self._waited = np.where(better, 0, self._waited + 1)
        if epoch == 0:
            return self.running  # Keras keeps the first weights even if their loss is NaN
        self.running = self.running & (better | (self._waited < self.patience))
        return better


def _validated(members: int, validation: Any, job: Job) -> np.ndarray:
    """Return positions of each member's validation rows: (members, rows)."""
    if job.validated is not None:
        return job.validated.astype(np.int32)
    rows = 0 if validation is None else len(jax.tree.leaves(validation)[0])
    return np.tile(np.arange(rows, dtype=np.int32), (members, 1))


def _over_batches(step: Any, state: Any, table: Any, order: Any, batch: int) -> Any:
    """Return (logs of the last step, state) after a step for each batch of rows in this order."""

    def one(state: Any, rows: Any) -> Any:
        logs, state = step(state, jax.tree.map(lambda leaf: leaf[rows], table))
        return state, logs

    logs, full = None, len(order) // batch
    if full:
        in_batches = jax.numpy.reshape(order[: full * batch], (full, batch))
        state, all_logs = jax.lax.scan(one, state, in_batches)
        logs = jax.tree.map(lambda values: values[-1], all_logs)
    if len(order) % batch:
        state, logs = one(state, order[full * batch :])
    return logs, state


def _chosen(mask: Any, new: Any, old: Any) -> Any:
    """Return the new variables of members for which the mask is true, else the old ones."""

    def choose(a: Any, b: Any) -> Any:
        return jax.numpy.where(mask.reshape(-1, *(1 for _ in a.shape[1:])), a, b)

    return jax.tree.map(choose, new, old)


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *trees)


def _slice(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
