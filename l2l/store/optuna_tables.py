"""Optuna's SQL tables: a batch is opened, and a trial closed, in one transaction each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

SCHEMAS = ("v3.2.0.a",)
"""Versions of Optuna's schema that are known here."""
TRIALS_TABLE, PARAMETERS_TABLE, VALUES_TABLE = "trials", "trial_params", "trial_values"
ATTRIBUTES_TABLE, STEPS_TABLE = "trial_user_attributes", "trial_intermediate_values"
"""Names of the tables of Optuna\'s database; a step is an epoch with its intermediate value."""


class OptunaTables:
    """Writes what Optuna's storage would write, in one transaction where Optuna takes one for every parameter."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        schema = sqlalchemy.MetaData()
        schema.reflect(engine, only=[TRIALS_TABLE, PARAMETERS_TABLE, VALUES_TABLE, ATTRIBUTES_TABLE, STEPS_TABLE])
        self._engine, self._tables = engine, schema.tables

    @staticmethod
    def of(storage: BaseStorage) -> OptunaTables | None:
        """The tables of a database; None if it has none or another schema: then use Optuna's own calls."""
        if not isinstance(storage, RDBStorage) or storage.get_current_version() not in SCHEMAS:
            return None
        return OptunaTables(storage.engine)

    def open(self, study: int, trials: Sequence[FrozenTrial]) -> list[int]:
        """Adds running trials, all or none; returns their ids."""
        ids: list[int] = []
        parameters: list[dict[str, Any]] = []
        attributes: list[dict[str, Any]] = []
        with self._engine.begin() as connection:
            for trial in trials:
                columns = {"study_id": study, "number": trial.number, "state": trial.state.name}
                insert = (
                    self._tables[TRIALS_TABLE].insert().values(**columns, datetime_start=_utc(trial.datetime_start))
                )
                key: Any = connection.execute(insert).inserted_primary_key
                ids.append(int(key[0]))
                for name, value in trial.params.items():
                    distribution = trial.distributions[name]
                    number = distribution.to_internal_repr(value)
                    text = distribution_to_json(distribution)
                    parameters.append(
                        {"trial_id": ids[-1], "param_name": name, "param_value": number, "distribution_json": text}
                    )
                attributes += [_attribute(ids[-1], name, value) for name, value in trial.user_attrs.items()]
            for table, records in ((PARAMETERS_TABLE, parameters), (ATTRIBUTES_TABLE, attributes)):
                if records:
                    connection.execute(self._tables[table].insert(), records)
        return ids

    def write(
        self,
        trial_id: int,
        attributes: Mapping[str, Any],
        steps: Mapping[int, float],
        state: TrialState = TrialState.RUNNING,
        values: Sequence[float] = (),
    ) -> None:
        """Replaces attributes and intermediate values of a trial, and writes how it ended if it has."""
        trials, attribute_table, step_table = (
            self._tables[name] for name in (TRIALS_TABLE, ATTRIBUTES_TABLE, STEPS_TABLE)
        )
        with self._engine.begin() as connection:
            old = attribute_table.c
            connection.execute(attribute_table.delete().where(old.trial_id == trial_id, old.key.in_(list(attributes))))
            records = [_attribute(trial_id, name, value) for name, value in attributes.items()]
            connection.execute(attribute_table.insert(), records)
            connection.execute(step_table.delete().where(step_table.c.trial_id == trial_id))
            if steps:
                kind = {"trial_id": trial_id, "intermediate_value_type": "FINITE"}
                records = [{**kind, "step": step, "intermediate_value": value} for step, value in steps.items()]
                connection.execute(step_table.insert(), records)
            if values:
                kind = {"trial_id": trial_id, "value_type": "FINITE"}
                records = [{**kind, "objective": index, "value": value} for index, value in enumerate(values)]
                connection.execute(self._tables[VALUES_TABLE].insert(), records)
            if state is not TrialState.RUNNING:
                ended = {"state": state.name, "datetime_complete": _utc(datetime.now())}
                connection.execute(trials.update().where(trials.c.trial_id == trial_id).values(**ended))


def _utc(local: datetime | None) -> datetime | None:
    """A local time as Optuna stores it."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


def _attribute(trial_id: int, name: str, value: Any) -> dict[str, Any]:
    return {"trial_id": trial_id, "key": name, "value_json": json.dumps(value)}
