"""Read runs from MLflow, for a comparison across sweeps and machines.

A database is read in SQL, with one query a table: MLflow's own search makes an object of every parameter, tag and
metric, which takes half a minute for 10,000 runs. A server is read through MLflow's client.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from headsweep.credentials import redacted, with_password
from headsweep.errors import UserError
from headsweep.tracking.mlflow.store import client, database_file, is_server, quiet_mlflow, reason

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_PAGE = 1000  # runs in one request to a server
_CHUNK = 50_000  # rows of a history in memory at a time


@dataclass(frozen=True)
class StoredRun:
    """An MLflow run."""

    run_id: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]  # the last value of each
    steps: dict[str, int]  # of that value
    info: SimpleNamespace = field(default_factory=SimpleNamespace)  # attributes for filters


class MlflowReader:
    """The runs of one experiment in the store at `uri`.

    Raises:
        UserError: there is no such store or experiment, or it does not answer.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._experiment = uri, experiment
        self._histories: dict[str, Mapping[str, tuple[array[int], array[float]]]] = {}
        database = database_file(uri)
        if database is not None and not database.exists():
            raise UserError(f"no MLflow store at {database}; give its address with --uri (tracking.uri)")

    def runs(self, query: str) -> list[StoredRun]:
        """Return the runs that MLflow's filter `query` matches, in the order of their start; "" matches all.

        Raises:
            UserError: the filter is not valid, or as for the class.
        """
        with self._one_line_errors():
            if self._is_server:
                return list(self._server_runs(query))
            with self._engine.connect() as connection:
                return _matching(_read_runs(connection, self._experiment_id), query)

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """Return epoch -> value of one run; from a database, the first call for a metric reads it of all runs."""
        with self._one_line_errors():
            if self._is_server:
                points = client(self._uri).get_metric_history(run_id, metric)
                return {point.step: point.value for point in points}
            if metric not in self._histories:
                with self._engine.connect() as connection:
                    self._histories[metric] = _read_histories(connection, self._experiment_id, metric)
            steps, values = self._histories[metric].get(run_id, ((), ()))
            return dict(zip(steps, values, strict=True))

    @property
    def _is_server(self) -> bool:
        return is_server(self._uri)

    @cached_property
    def _engine(self) -> Engine:
        import sqlalchemy

        return sqlalchemy.create_engine(with_password(self._uri))

    @cached_property
    def _experiment_id(self) -> Any:
        if self._is_server:
            found = client(self._uri).get_experiment_by_name(self._experiment)
            names = [it.name for it in client(self._uri).search_experiments()] if found is None else []
        else:
            with self._engine.connect() as connection:
                names = [row[1] for row in _execute(connection, "SELECT experiment_id, name FROM experiments")]
                found = _find_experiment(connection, self._experiment)
        if found is None:
            raise UserError(
                f"MLflow at {redacted(self._uri)} has no experiment {self._experiment}; known: {', '.join(names)}"
            )
        return found.experiment_id if self._is_server else found

    def _server_runs(self, query: str) -> Iterator[StoredRun]:
        token = None
        while token != "":
            page = client(self._uri).search_runs(
                [self._experiment_id], query, max_results=_PAGE, order_by=["attributes.start_time"], page_token=token
            )
            for run in page:
                steps = {metric.key: metric.step for metric in run.data._metric_objs}
                data = run.data
                yield StoredRun(run.info.run_id, dict(data.tags), dict(data.params), dict(data.metrics), steps)
            token = page.token or ""

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # whatever a driver, a server or a network does
            raise UserError(f"MLflow at {redacted(self._uri)} cannot be read ({reason(error, self._uri)})") from error


def _execute(connection: Connection, statement: str, **values: object) -> Sequence[Any]:
    import sqlalchemy

    return connection.execute(sqlalchemy.text(statement), values).all()


def _find_experiment(connection: Connection, experiment: str) -> Any:
    rows = _execute(connection, "SELECT experiment_id FROM experiments WHERE name = :name", name=experiment)
    return rows[0][0] if rows else None


def _read_runs(connection: Connection, experiment_id: object) -> list[StoredRun]:
    active_runs = (
        "FROM {} t JOIN runs r ON r.run_uuid = t.run_uuid WHERE r.experiment_id = :e AND r.lifecycle_stage = 'active'"
    )
    tags, params = (
        _pairs(connection, "tags", active_runs, experiment_id),
        _pairs(connection, "params", active_runs, experiment_id),
    )
    metrics: defaultdict[str, dict[str, float]] = defaultdict(dict)
    steps: defaultdict[str, dict[str, int]] = defaultdict(dict)
    query = f"SELECT t.run_uuid, t.key, t.value, t.step, t.is_nan {active_runs.format('latest_metrics')}"
    for run_id, key, value, step, is_nan in _execute(connection, query, e=experiment_id):
        metrics[run_id][key] = float("nan") if is_nan else value
        steps[run_id][key] = step
    attributes = ("run_id", "run_name", "status", "user_id", "artifact_uri", "start_time", "end_time")
    query = (
        "SELECT run_uuid, name, status, user_id, artifact_uri, start_time, end_time FROM runs "
        "WHERE experiment_id = :e AND lifecycle_stage = 'active' ORDER BY start_time, run_uuid"
    )
    return [
        StoredRun(row[0], tags[row[0]], params[row[0]], metrics[row[0]], steps[row[0]], _namespace(attributes, row))
        for row in _execute(connection, query, e=experiment_id)
    ]


def _pairs(
    connection: Connection, table: str, active_runs: str, experiment_id: object
) -> defaultdict[str, dict[str, str]]:
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    query = f"SELECT t.run_uuid, t.key, t.value {active_runs.format(table)} AND t.key NOT IN ('mlflow.note.content')"
    for run_id, key, value in _execute(connection, query, e=experiment_id):
        found[run_id][key] = value
    return found


def _namespace(names: Sequence[str], row: Sequence[Any]) -> SimpleNamespace:
    return SimpleNamespace(**dict(zip(names, row, strict=True)))


def _read_histories(
    connection: Connection, experiment_id: object, metric: str
) -> Mapping[str, tuple[array[int], array[float]]]:
    """Return run -> epochs and values, in arrays: 12 bytes a point, where a dictionary takes 100."""
    import sqlalchemy

    query = (
        "SELECT m.run_uuid, m.step, m.value FROM metrics m JOIN runs r ON r.run_uuid = m.run_uuid "
        "WHERE m.key = :key AND r.experiment_id = :e AND r.lifecycle_stage = 'active' AND NOT m.is_nan"
    )
    found: defaultdict[str, tuple[array[int], array[float]]] = defaultdict(lambda: (array("i"), array("d")))
    result = connection.execution_options(stream_results=True, yield_per=_CHUNK).execute(
        sqlalchemy.text(query), {"key": metric, "e": experiment_id}
    )
    for run_id, step, value in result:
        steps, values = found[run_id]
        steps.append(step)
        values.append(value)
    return found


def _matching(runs: Sequence[StoredRun], query: str) -> list[StoredRun]:
    """Return the runs that a filter matches, as MLflow itself interprets it."""
    if not query:
        return list(runs)
    quiet_mlflow()
    from mlflow.utils.search_utils import SearchUtils

    entities = [SimpleNamespace(info=run.info, data=run, stored=run) for run in runs]
    return [entity.stored for entity in SearchUtils.filter(entities, query)]
