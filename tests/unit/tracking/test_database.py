"""MLflow's database, as a first run makes it."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

from medvision.tracking.mlflow_sink import make_database


def test_the_database_is_whole_when_it_is_there(tmp_path):
    """A database that was made has MLflow's default experiment, and no file of its making is left."""
    make_database(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [".mlflow.db.lock", "mlflow.db"]


def test_what_a_killed_first_run_left_is_made_anew(tmp_path):
    """Half a database of a run that was killed is replaced."""
    (tmp_path / ".mlflow.db.new").write_bytes(b"half")
    make_database(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").is_file()
    assert not (tmp_path / ".mlflow.db.new").exists()


def test_two_first_runs_make_one_database(tmp_path):
    """Of two that come at once, one makes the database and the other waits for it."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make_database, [uri, uri]))
    assert (tmp_path / "mlflow.db").is_file()
