"""A doctor's own operating point: kept with the account, checked, logged, and nobody else's."""

from __future__ import annotations

import pytest

from bcd_models.errors import InputError
from clinic.analysis.models import Models
from clinic.analysis.points import choose_own_point, read_own_point
from clinic.installation import Installation
from clinic.storage.actor import Actor
from clinic.storage.tables import AuditEntry


def test_it_is_kept_with_the_account_and_logged(
    clinic: Installation, doctors: dict[str, Actor], pointed_models: Models
) -> None:
    ada, grace, models = doctors["ada"], doctors["grace"], pointed_models
    assert read_own_point(clinic, models, ada) is None
    choose_own_point(clinic, models, ada, "all")
    assert read_own_point(clinic, models, ada) == "all"
    assert read_own_point(clinic, models, grace) is None
    choose_own_point(clinic, models, ada, "balanced")  # each model's own
    assert read_own_point(clinic, models, ada) == ""
    choose_own_point(clinic, models, ada, None)
    assert read_own_point(clinic, models, ada) is None
    with clinic.database.snapshot() as session:
        rows = session.query(AuditEntry).filter_by(action="point_chosen").all()
        assert [row.detail["point"] for row in rows] == ["all", "", None]
        assert {row.subject for row in rows} == {f"account {ada.account_id}"}


def test_one_that_no_model_has_is_refused_and_one_that_is_gone_is_none(
    clinic: Installation, ada: Actor, pointed_models: Models, small_models: Models
) -> None:
    with pytest.raises(InputError, match="no model has an operating point 'some'"):
        choose_own_point(clinic, pointed_models, ada, "some")
    choose_own_point(clinic, pointed_models, ada, "all")
    assert read_own_point(clinic, small_models, ada) is None
