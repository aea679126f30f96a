"""Optuna's tables in a database: a batch is opened, and a trial closed, in one transaction each."""

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
"""Versions of Optuna's tables that are known here."""
TRIALS, PARAMETERS, VALUES = "trials", "trial_params", "trial_values"
ATTRIBUTES, STEPS = "trial_user_attributes", "trial_intermediate_values"


class Tables:
    """Writes what Optuna's storage would, whose own calls look every parameter up and wait for the disk each time."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        found = sqlalchemy.MetaData()
        found.reflect(engine, only=[TRIALS, PARAMETERS, VALUES, ATTRIBUTES, STEPS])
        self._engine, self._tables = engine, found.tables

    @staticmethod
    def of(storage: BaseStorage) -> Tables | None:
        """The tables of a database whose schema is known here, else None: Optuna's own calls will do."""
        if not isinstance(storage, RDBStorage) or storage.get_current_version() not in SCHEMAS:
            return None
        return Tables(storage.engine)

    def open(self, study: int, trials: Sequence[FrozenTrial]) -> list[int]:
        """Adds running trials, all or none; their rows."""
        rows: list[int] = []
        parameters: list[dict[str, Any]] = []
        attributes: list[dict[str, Any]] = []
        with self._engine.begin() as connection:
            for trial in trials:
                made = {"study_id": study, "number": trial.number, "state": trial.state.name}
                insert = self._tables[TRIALS].insert().values(**made, datetime_start=_utc(trial.datetime_start))
                key: Any = connection.execute(insert).inserted_primary_key
                rows.append(int(key[0]))
                for name, value in trial.params.items():
                    kind = trial.distributions[name]
                    number = kind.to_internal_repr(value)
                    text = distribution_to_json(kind)
                    parameters.append(
                        {"trial_id": rows[-1], "param_name": name, "param_value": number, "distribution_json": text}
                    )
                attributes += [_attribute(rows[-1], name, value) for name, value in trial.user_attrs.items()]
            for table, lines in ((PARAMETERS, parameters), (ATTRIBUTES, attributes)):
                if lines:
                    connection.execute(self._tables[table].insert(), lines)
        return rows

    def note(
        self,
        row: int,
        attributes: Mapping[str, Any],
        steps: Mapping[int, float],
        state: TrialState = TrialState.RUNNING,
        values: Sequence[float] = (),
    ) -> None:
        """Writes attributes and intermediate values of a trial in place of those it had, and how it ended."""
        trials, table, kept = (self._tables[name] for name in (TRIALS, ATTRIBUTES, STEPS))
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(table.c.trial_id == row, table.c.key.in_(list(attributes))))
            connection.execute(table.insert(), [_attribute(row, name, value) for name, value in attributes.items()])
            connection.execute(kept.delete().where(kept.c.trial_id == row))
            if steps:
                kind = {"trial_id": row, "intermediate_value_type": "FINITE"}
                lines = [{**kind, "step": step, "intermediate_value": value} for step, value in steps.items()]
                connection.execute(kept.insert(), lines)
            if values:
                kind = {"trial_id": row, "value_type": "FINITE"}
                lines = [{**kind, "objective": at, "value": value} for at, value in enumerate(values)]
                connection.execute(self._tables[VALUES].insert(), lines)
            if state is not TrialState.RUNNING:
                ended = {"state": state.name, "datetime_complete": _utc(datetime.now())}
                connection.execute(trials.update().where(trials.c.trial_id == row).values(**ended))


def _utc(local: datetime | None) -> datetime | None:
    """A local time as the tables hold it."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


def _attribute(row: int, name: str, value: Any) -> dict[str, Any]:
    return {"trial_id": row, "key": name, "value_json": json.dumps(value)}
