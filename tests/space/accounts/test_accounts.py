"""Accounts, passwords, sessions and the lockout, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bcd_models.errors import InputError
from clinic.accounts import accounts, lockout, passwords, sign_ins
from clinic.accounts.accounts import (
    create,
    create_first_admin,
    list_accounts,
    reset_password,
    set_active,
)
from clinic.accounts.lockout import TooManyAttempts
from clinic.accounts.sign_ins import SignInFailed, end_sessions, find_actor, sign_in, sign_out
from clinic.installation import Installation
from clinic.storage.actor import Actor, NotAllowed, NotFound, NotSignedIn
from clinic.storage.database import Database
from clinic.storage.tables import AuditEntry, Failures, SignIn
from tests.support.clinic import Clock

PASSWORD, HERE = "correct horse battery", "10.0.0.1"


@pytest.fixture
def admin(clinic: Installation) -> Actor:
    password = create_first_admin(clinic)
    assert password
    actor = find_actor(clinic, sign_in(clinic, "admin", password, HERE), HERE)
    assert actor
    return actor


@pytest.fixture
def ada(clinic: Installation, admin: Actor) -> int:
    number, _ = create(clinic, admin, "ada", "doctor", PASSWORD)
    return number


def actions(clinic: Installation) -> list[str]:
    with clinic.database.snapshot() as session:
        rows = session.query(AuditEntry).order_by(AuditEntry.number)
        return [row.action for row in rows]


def test_the_first_start_makes_one_admin(clinic: Installation) -> None:
    password = create_first_admin(clinic)
    assert password
    assert len(password) >= 16
    assert create_first_admin(clinic) is None
    with pytest.raises(SignInFailed):
        sign_in(clinic, "admin", "admin", HERE)
    assert sign_in(clinic, "Admin ", password, HERE)


def test_the_first_admins_password_may_be_given(clinic: Installation) -> None:
    given = replace(
        clinic, settings=clinic.settings.model_copy(update={"admin_password": PASSWORD})
    )
    assert create_first_admin(given) is None
    assert sign_in(clinic, "admin", PASSWORD, HERE)


def test_what_is_kept_is_no_password_and_no_token(clinic: Installation, ada: int) -> None:
    token = sign_in(clinic, "ada", PASSWORD, HERE)
    with clinic.database.snapshot() as session:
        kept = session.get_one(accounts.Account, ada).password_hash
        assert kept
        assert kept.startswith("$argon2id$")
        assert token not in {row.token_sha256 for row in session.query(SignIn)}


def test_unknown_wrong_and_closed_are_told_alike(
    clinic: Installation, admin: Actor, ada: int
) -> None:
    create(clinic, admin, "closed", "doctor", PASSWORD)
    (closed,) = (row.id for row in list_accounts(clinic, admin) if row.name == "closed")
    set_active(clinic, admin, closed, False)
    said = set()
    for name, password in (("ada", "wrong"), ("nobody", PASSWORD), ("closed", PASSWORD)):
        with pytest.raises(SignInFailed) as told:
            sign_in(clinic, name, password, HERE)
        said.add(str(told.value))
    assert said == {"name or password is wrong"}
    assert actions(clinic).count("sign_in_failed") == 3


def test_an_unknown_name_is_hashed_for_too(
    clinic: Installation, ada: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    hasher = type(passwords._get_hasher())
    monkeypatch.setattr(
        hasher, "verify_and_update", lambda *given: (hashed.append(given[2]), (False, None))[1]
    )
    for name in ("ada", "nobody"):
        with pytest.raises(SignInFailed):
            sign_in(clinic, name, "wrong", HERE)
    assert len(hashed) == 2
    assert all(kept.startswith("$argon2id$") for kept in hashed)


def test_sessions_end_by_time_sign_out_and_password(
    clinic: Installation, ada: int, time: Clock
) -> None:
    token = sign_in(clinic, "ada", PASSWORD, HERE)
    for _ in range(3):
        time.move(hours=7.5)
        assert find_actor(clinic, token, HERE)
    time.move(hours=2)  # three times eight hours are over
    assert find_actor(clinic, token, HERE) is None
    token = sign_in(clinic, "ada", PASSWORD, HERE)
    time.move(hours=8.1)
    assert find_actor(clinic, token, HERE) is None
    first, second = (sign_in(clinic, "ada", PASSWORD, HERE) for _ in range(2))
    sign_out(clinic, first)
    sign_out(clinic, "unknown")
    assert find_actor(clinic, first, HERE) is None
    actor = find_actor(clinic, second, HERE)
    accounts.change_password(clinic, actor, PASSWORD, "another good password")
    assert find_actor(clinic, second, HERE) is None
    assert sign_in(clinic, "ada", "another good password", HERE)


def test_sessions_outlive_the_process(clinic: Installation, ada: int) -> None:
    token = sign_in(clinic, "ada", PASSWORD, HERE)
    own = Database(clinic.database.url.render_as_string(hide_password=False))
    actor = find_actor(replace(clinic, database=own), token, HERE)
    own.engine.dispose()
    assert actor == Actor(ada, "ada", "doctor", HERE)


@pytest.mark.slow
def test_guessing_is_made_slow_before_it_is_hashed(
    clinic: Installation, ada: int, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(passwords, "check", lambda *_: (hashed.append(1), (False, None))[1])
    waits = []
    for _ in range(1000):
        try:
            sign_in(clinic, "ada", "wrong", HERE)
        except TooManyAttempts as told:
            waits.append(told.seconds)
        except SignInFailed:
            pass
        time.move(seconds=1)
    assert len(hashed) < 20
    assert max(waits) > 250
    assert actions(clinic).count("sign_in_failed") == 1000
    monkeypatch.undo()


def test_waits_grow_and_fade(clinic: Installation, time: Clock) -> None:
    seen = []
    for _ in range(16):
        with clinic.database.transaction() as session:
            lockout.count_attempt(session, "ada", HERE)
            until = session.get_one(Failures, f"account:{_sha('ada')}").locked_until
        seen.append(int((until - time.at).total_seconds()) if until else 0)
        time.move(seconds=seen[-1])
    assert seen == [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    time.move(days=1, seconds=1)
    with clinic.database.transaction() as session:
        lockout.count_attempt(session, "ada", HERE)
        assert session.get_one(Failures, f"account:{_sha('ada')}").count == 1


def _sha(name: str) -> str:
    return lockout._list_keys(name, HERE)[0][1]


def test_an_address_waits_whatever_names_it_tries(clinic: Installation, time: Clock) -> None:
    refused = 0
    for number in range(40):
        try:
            with clinic.database.transaction() as session:
                lockout.count_attempt(session, f"name{number}", HERE)
        except TooManyAttempts:
            refused += 1
    assert refused == 20
    with clinic.database.transaction() as session:
        lockout.count_attempt(session, "name1", "10.0.0.2")


def test_a_success_forgives_the_account_and_not_the_address(
    clinic: Installation, ada: int, time: Clock
) -> None:
    for _ in range(3):
        with pytest.raises(SignInFailed):
            sign_in(clinic, "ada", "wrong", HERE)
    sign_in(clinic, "ada", PASSWORD, HERE)
    with clinic.database.snapshot() as session:
        counts = {row.of.split(":")[0]: row.count for row in session.query(Failures) if row.count}
    assert counts == {"address": 3}


def test_an_admin_makes_closes_and_resets(clinic: Installation, admin: Actor, ada: int) -> None:
    token = sign_in(clinic, "ada", PASSWORD, HERE)
    new = reset_password(clinic, admin, ada)
    assert find_actor(clinic, token, HERE) is None
    token = sign_in(clinic, "ada", new, HERE)
    assert [(row.name, row.role, row.sign_ins) for row in list_accounts(clinic, admin)] == [
        ("ada", "doctor", 1),
        ("admin", "admin", 1),
    ]
    set_active(clinic, admin, ada, False)
    assert find_actor(clinic, token, HERE) is None
    with pytest.raises(InputError, match="last admin"):
        set_active(clinic, admin, admin.account_id, False)
    with pytest.raises(NotFound):
        reset_password(clinic, admin, 999)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ada", PASSWORD),
        ("Ada", ""),
        ("a", ""),
        ("a b", ""),
        ("eve", "short"),
        ("evelyn.smith", "Evelyn.Smith"),
    ],
)
def test_names_and_passwords_are_checked(
    clinic: Installation, admin: Actor, ada: int, name: str, password: str
) -> None:
    with pytest.raises(InputError):
        create(clinic, admin, name, "doctor", password)


def test_hub_accounts_sign_in_by_the_list(clinic: Installation, admin: Actor) -> None:
    clinic = replace(
        clinic, settings=clinic.settings.model_copy(update={"hub_accounts": ("Grace",)})
    )
    tokens = [sign_ins.sign_in_from_hub(clinic, "grace", HERE) for _ in range(2)]
    grace = find_actor(clinic, tokens[1], HERE)
    assert grace
    assert (grace.name, grace.role) == ("hub:grace", "doctor")
    with pytest.raises(NotAllowed):
        sign_ins.sign_in_from_hub(clinic, "mallory", HERE)
    with pytest.raises(SignInFailed):
        sign_in(clinic, "hub:grace", "", HERE)
    set_active(clinic, admin, grace.account_id, False)
    assert find_actor(clinic, tokens[1], HERE) is None
    with pytest.raises(NotAllowed):
        sign_ins.sign_in_from_hub(clinic, "grace", HERE)


def test_only_admins_manage_accounts(clinic: Installation, admin: Actor, ada: int) -> None:
    doctor = Actor(ada, "ada", "doctor", HERE)
    acts = [
        lambda actor: create(clinic, actor, "eve", "doctor"),
        lambda actor: list_accounts(clinic, actor),
        lambda actor: reset_password(clinic, actor, ada),
        lambda actor: set_active(clinic, actor, admin.account_id, False),
        lambda actor: end_sessions(clinic, actor, admin.account_id),
    ]
    for act in acts:
        with pytest.raises(NotAllowed):
            act(doctor)
        with pytest.raises(NotSignedIn):
            act(None)
    assert end_sessions(clinic, admin, admin.account_id) == 1
    assert end_sessions(clinic, doctor, ada) == 0
    with pytest.raises(NotSignedIn):
        accounts.change_password(clinic, None, PASSWORD, "another good password")
    with pytest.raises(InputError, match="present password"):
        accounts.change_password(clinic, doctor, "wrong", "another good password")
