"""Rows: outcomes as JSON, and trials as CSV."""

from __future__ import annotations

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from l2l.run.trials_csv import write_csv
from l2l.space import Candidate, Categorical, Real, SearchSpace
from l2l.store.trial_json import read_outcome, write_outcome
from l2l.types import Outcome, Status, Trial

_by_name = st.dictionaries(st.text(max_size=5), st.floats(), max_size=4)


@given(
    st.builds(
        Outcome,
        metrics=_by_name,
        seconds=_by_name,
        curve=st.dictionaries(st.text(max_size=5), st.lists(st.floats(), max_size=4), max_size=3),
        error=st.none() | st.text(),
    )
)
def test_an_outcome_comes_back_from_strict_json(outcome: Outcome) -> None:
    assert repr(read_outcome(json.loads(json.dumps(write_outcome(outcome), allow_nan=False)))) == repr(outcome)


SPACE: SearchSpace[None] = SearchSpace(
    {
        "width": Categorical(options=(8, None)),
        "rate": Real(low=0, high=1, when={"width": 8}),
        "status": Categorical(options=(True,)),
    },
    build=lambda values, spec: None,
)
TRIALS = [
    Trial(
        0,
        Candidate({"width": 8, "rate": 0.1 + 0.2, "status": True}),
        (0, 3),
        (0,),
        Status.COMPLETE,
        Outcome({"loss": 1e-300, "accuracy": 0.5}, {"train": 1.5}),
        (1 / 3,),
    ),
    Trial(
        1,
        Candidate({"width": None, "status": True}),
        (0, 3),
        (1,),
        Status.FAILED,
        Outcome({"width": 2.0}, error='broke, "so"\nit did'),
    ),
    Trial(2, Candidate({"width": None, "status": True}), (0, 3), (2,)),
]


def test_the_table_is_this_to_the_letter() -> None:
    assert write_csv(TRIALS, SPACE) == (
        "number,status,reward,width,rate,choice_status,accuracy,loss,metric_width,seconds_train,error\n"
        "0,complete,0.3333333333333333,8,0.30000000000000004,True,0.5,1e-300,,1.5,\n"
        '1,failed,,None,,True,,,2.0,,"broke, ""so""\nit did"\n'
        "2,running,,None,,True,,,,,\n"
    )


def test_the_table_of_nothing_has_its_columns() -> None:
    assert write_csv([], SPACE) == "number,status,reward,width,rate,choice_status,error\n"


def test_several_rewards_have_several_columns() -> None:
    trial = Trial(0, TRIALS[0].candidate, (0, 1), (0,), Status.COMPLETE, Outcome(), (1.0, -2.0))
    (row,) = csv.DictReader(io.StringIO(write_csv([trial], SPACE)))
    assert (row["reward_0"], row["reward_1"]) == ("1.0", "-2.0")
