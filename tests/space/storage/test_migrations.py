"""Tables are brought up to date from nothing and from every earlier revision, and lose nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect

from bcd_models.errors import InputError
from bcd_models.prediction import Finding
from clinic.analysis import stored_answers, wording
from clinic.installation import open_installation
from clinic.storage import clock, migrations
from clinic.storage.database import Database
from clinic.storage.tables import Account, Base, Patient, Result
from tests.support.clinic import settings_at

FOLDER = Path(migrations.__file__).parent
CONFIG = Config()
CONFIG.set_main_option("script_location", str(FOLDER))
REVISIONS = [script.revision for script in ScriptDirectory.from_config(CONFIG).walk_revisions()]


@pytest.fixture
def database(database_url: str, tmp_path: Path):
    opened = Database(database_url or f"sqlite:///{tmp_path / 'clinic.db'}")
    yield opened
    opened.engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_leads_to_the_tables_of_the_code(database: Database, revision: str) -> None:
    migrations.migrate(database, revision)
    migrations.migrate(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == REVISIONS[0]


def test_again_changes_nothing(database: Database) -> None:
    migrations.migrate(database)
    with database.transaction() as session:
        made = {"created_at": clock.now(), "changed_at": clock.now()}
        owner = Account(name="ada", role="doctor", created_at=clock.now())
        session.add(Patient(id="P-1", owner=owner, **made))
    migrations.migrate(database)
    with database.snapshot() as session:
        patient = session.get_one(Patient, "P-1")
        assert patient.created_at == made["created_at"]
        assert patient.owner.name == "ada"


def test_what_answered_before_it_was_kept_is_not_known(database: Database) -> None:
    _write_a_result(database, "0004")
    migrations.migrate(database)
    with database.transaction() as session:
        older = session.get_one(Result, 1)
        assert (older.runtime, older.probability, older.reasons) == ("", 0.2, [])
        older.runtime = "onnx float32"
    with database.snapshot() as session:
        assert session.get_one(Result, 1).runtime == "onnx float32"


def test_the_scale_of_older_answers_reads_as_not_recorded(database: Database) -> None:
    _write_a_result(database, "0005", runtime="onnx float32")
    migrations.migrate(database)
    tiles = [[0.1, None], [0.7, 0.2]]
    with database.transaction() as session:
        older = session.get_one(Result, 1)
        assert (older.mpp, older.scale, older.tile_probabilities) == (None, "", [])
        said = stored_answers.prediction(older.image, older)
        assert (said.tiles, wording.scale_words(said)) == (1, "scale not recorded")
        older.mpp, older.scale, older.tile_probabilities = 0.5, "given", tiles
    with database.snapshot() as session:
        newer = session.get_one(Result, 1)
        said = stored_answers.prediction(newer.image, newer)
        assert said.tile_probabilities == ((0.1, None), (0.7, 0.2))
        assert (said.tiles, said.malignant_tiles) == (3, 1)
        assert wording.scale_words(said) == "0.5 µm a pixel, as given"


def test_the_operating_point_of_older_answers_is_not_told(database: Database) -> None:
    _write_a_result(database, "0006", runtime="", scale="given", tile_probabilities=[])
    migrations.migrate(database)
    with database.transaction() as session:
        older = session.get_one(Result, 1)
        said = stored_answers.prediction(older.image, older)
        assert (said.point, said.missed_of_100, said.missed_words) == ("", None, "")
        assert "operating point" not in wording.probability_line(said)
        older.point, older.missed_of_100 = "screening", 5
    with database.snapshot() as session:
        newer = session.get_one(Result, 1)
        said = stored_answers.prediction(newer.image, newer)
        assert "(screening) the model missed 5 of 100" in said.missed_words
        assert "(operating point “screening”)" in wording.probability_line(said)


def test_older_answers_have_no_findings_and_older_doctors_no_default(database: Database) -> None:
    kept = {"scale": "given", "tile_probabilities": [], "point": ""}
    _write_a_result(database, "0007", runtime="", **kept)
    migrations.migrate(database)
    found = {"name": "focus", "value": 0.3, "threshold": 0.5, "words": "out of focus", "tiles": 1}
    with database.transaction() as session:
        older = session.get_one(Result, 1)
        said = stored_answers.prediction(older.image, older)
        assert (said.findings, said.tile_findings, said.ignored) == ((), (), ())
        assert not said.is_unsuitable
        assert wording.override_line(said) == ""
        older.ignored = [found]
        account = session.get_one(Account, 1)
        assert account.point is None
        account.point = "screening"
    with database.snapshot() as session:
        newer = session.get_one(Result, 1)
        said = stored_answers.prediction(newer.image, newer)
        assert said.ignored == (Finding(**found),)
        assert "although the image looks unsuitable: out of focus" in wording.override_line(said)
        assert session.get_one(Account, 1).point == "screening"


def _write_a_result(database: Database, revision: str, **more: Any) -> None:
    """Write one answer into the tables of an earlier revision."""
    migrations.migrate(database, revision)
    tables = MetaData()
    tables.reflect(database.engine)
    now = clock.now()
    said = {"label": "benign", "probability": 0.2, "decision": "benign", "threshold": 0.5}
    said |= {"model": "m", "model_version": "1", "weights_sha256": "0" * 64, "reasons": []}
    rows: dict[str, dict[str, Any]] = {
        "account": {"id": 1, "name": "ada", "role": "doctor", "active": True, "created_at": now},
        "patient": {"id": "P-1", "owner_id": 1, "note": "", "synthetic": False, "version": 1}
        | {"created_at": now, "changed_at": now},
        "examination": {"id": "E-1", "patient_id": "P-1", "made_by": 1, "created_at": now}
        | {"stain": "H&E", "specimen": "other", "comment": ""},
        "examined_image": {"id": 1, "examination_id": "E-1", "position": 1, "format": "PNG"}
        | {"sha256": "a" * 64, "width": 50, "height": 50},
        "result": {"id": 1, "image_id": 1, "made_at": now, "heat_sha256": "b" * 64, **said, **more},
    }
    with database.engine.begin() as connection:
        for name, row in rows.items():
            connection.execute(tables.tables[name].insert(), row)


def test_two_at_once_wait_for_each_other(database: Database) -> None:
    errors: list[BaseException] = []

    def migrate() -> None:
        own = Database(database.url.render_as_string(hide_password=False))
        try:
            migrations.migrate(own)
        except BaseException as error:
            errors.append(error)
        finally:
            own.engine.dispose()

    workers = [threading.Thread(target=migrate) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert set(inspect(database.engine).get_table_names()) == {
        "alembic_version",
        *Base.metadata.tables,
    }


def test_a_migration_that_fails_leaves_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alembic.op.batch_alter_table", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migrations.migrate(database)
    assert inspect(database.engine).get_table_names() == []


def test_a_refusal_names_no_password(tmp_path: Path) -> None:
    url = "postgresql://bcd:geheim@127.0.0.1:1/none"
    with pytest.raises(InputError, match="BCD_DATABASE_URL") as told:
        open_installation(settings_at(tmp_path, url))
    assert "geheim" not in str(told.value)
    with pytest.raises(InputError, match="no database 'mysql'"):
        open_installation(settings_at(tmp_path, "mysql://somewhere/none"))
    with pytest.raises(InputError, match="can't be read"):
        open_installation(settings_at(tmp_path, "nonsense"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="data folder"):
        open_installation(settings_at(tmp_path / "file"))
