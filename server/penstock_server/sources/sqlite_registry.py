"""Reads a registry in sqlite directly, without mlflow: in a millisecond, and without 130 MB of libraries.

It reads the five tables that MLflow has had since its aliases. A database that is not there, or has no tables yet, is a
registry without models; `penstock publish` makes both. All that it ever writes are aliases and tags of rollouts, in one
transaction.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from penstock.names import CANARY, ROLES, SHADOW
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.rollout.progress import CANDIDATE, SPEC_TAG
from penstock_server.rollout.registered import TAG_PREFIX, Change, DeleteAlias, DeleteTag, Expected, SetAlias, SetTag
from penstock_server.sources.registered import (
    IS_PROMPT,
    MAX_MODELS,
    RegisteredModel,
    RegisteredVersion,
    check_expected,
    identity_of,
)

LOCKED_S: Final = 5.0
_DELETED: Final = "Deleted_Internal"
_VERSION: Final = "v.name, v.version, v.creation_time, v.source, v.run_id, v.status"


class RoleAliases:
    """Tells the aliases that give a role, or will.

    Args:
        exact: their names.
        suffixed: those of them that may have a suffix after a hyphen.

    Attributes:
        bound: the values for the placeholders of `gives`.
    """

    def __init__(self, exact: Sequence[str] = ROLES, suffixed: Sequence[str] = (CANARY, SHADOW)) -> None:
        self.bound = (*exact, CANDIDATE, *(f"{_literally(alias)}-*" for alias in suffixed))
        self._exact = len(exact) + 1
        self._suffixed = len(suffixed)

    def gives(self, table: str) -> str:
        """The condition that a row's alias does."""
        exact = ", ".join("?" * self._exact)
        return " OR ".join([f"({table}.alias IN ({exact})", *[f"{table}.alias GLOB ?"] * self._suffixed]) + ")"


def _literally(alias: str) -> str:
    """A pattern for GLOB that matches these characters alone."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", alias)


class SqliteRegistry:
    """One file.

    Args:
        path: the database.
        shown: the registry's address without secrets.
        workspace: the workspace whose models are read, where MLflow has workspaces.
        roles: which aliases give a role.
    """

    def __init__(self, path: Path, shown: str, *, workspace: str = "default", roles: RoleAliases | None = None) -> None:
        self._path = path
        self._shown = shown
        self._workspace = workspace
        self._roles = RoleAliases() if roles is None else roles

    def models(self) -> Sequence[RegisteredModel]:
        with self._opened() as tables:
            return [] if tables is None else tables.models("", ())

    def model(self, name: str) -> RegisteredModel:
        with self._opened() as tables:
            for found in [] if tables is None else tables.models("AND m.name = ?", (name,)):
                return found
        raise NotFoundError(f"model {name!r} is not in the registry {self._shown}")

    def version(self, model: str, version: str) -> RegisteredVersion:
        row, tags = self._version(model, version)
        return _registered(self._shown, row[:6], tags)

    def newest(self, model: str, count: int) -> list[str]:
        with self._opened() as tables:
            return [] if tables is None else tables.newest(model, count)

    def artifact_uri(self, model: str, version: str) -> str:
        row, _ = self._version(model, version)
        return str(row[6] or row[3] or "")

    def _version(self, model: str, version: str) -> tuple[Any, dict[str, str]]:
        if not re.fullmatch(r"[0-9]{1,18}", version):
            raise InvalidInputError(
                f"the registry {self._shown} refuses version {version!r} of model {model!r}: a version is a number"
            )
        with self._opened() as tables:
            rows = [] if tables is None else tables.version(model, int(version))
            for row in rows:
                return row, {} if tables is None else tables.tags(model, int(version))
        raise NotFoundError(f"version {version} of model {model!r} is not in the registry {self._shown}")

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        try:
            address = f"file:{quote(str(self._path))}?mode=rw"
            with closing(sqlite3.connect(address, uri=True, timeout=LOCKED_S, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                _Writing(_Tables(connection, self._shown, self._workspace, self._roles), connection).make(
                    model, expected, changes
                )
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"the registry {self._shown} cannot be written to: {error}") from error

    @contextmanager
    def _opened(self) -> Iterator["_Tables | None"]:
        """The tables, in one consistent state; None if there are none yet."""
        try:
            if not self._path.exists():
                yield None
                return
            address = f"file:{quote(str(self._path))}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=LOCKED_S)) as connection:
                connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
                connection.execute("BEGIN")
                has = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'registered_models'").fetchone()
                yield _Tables(connection, self._shown, self._workspace, self._roles) if has else None
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"the registry {self._shown} cannot be read: {error}") from error


class _Tables:
    def __init__(self, connection: sqlite3.Connection, shown: str, workspace: str, roles: RoleAliases) -> None:
        self._connection = connection
        self._roles = roles
        self._shown = shown
        columns = {row[1] for row in connection.execute("PRAGMA table_info(registered_models)")}
        self._workspace = (workspace,) if "workspace" in columns else ()
        self.here: dict[str, object] = {"workspace": workspace} if self._workspace else {}

    def models(self, where: str, values: tuple[str, ...]) -> list[RegisteredModel]:
        rows = self._rows(
            f"SELECT m.name FROM registered_models m WHERE {self._here('m')} {where} AND NOT EXISTS (SELECT 1 FROM "
            "registered_model_tags t WHERE t.name = m.name AND t.key = ? AND lower(t.value) = 'true') LIMIT ?",
            (*self._workspace, *values, IS_PROMPT, MAX_MODELS + 1),
        )
        if len(rows) > MAX_MODELS:
            raise UnavailableError(f"the registry {self._shown} lists more than {MAX_MODELS:,} models")
        newest = {
            str(name): str(version)
            for name, version in self._rows(
                f"SELECT m.name, max(m.version) FROM model_versions m WHERE {self._here('m')} {where} "
                "AND m.current_stage IS NOT ? GROUP BY m.name",
                (*self._workspace, *values, _DELETED),
            )
        }
        aliases, versions = self._aliases(where, values), self._aliased(where, values)
        for name, version in self._rows(
            f"SELECT m.name, m.version FROM model_version_tags m WHERE {self._here('m')} {where} AND m.key = ?",
            (*self._workspace, *values, SPEC_TAG),
        ):
            if str(version) == newest.get(name) and str(version) not in versions.setdefault(name, {}):
                for row in self.version(name, version):
                    versions[name][str(version)] = _registered(self._shown, row[:6], self.tags(name, version))
        tags: dict[str, dict[str, str]] = {}
        for name, key, value in self._rows(
            f"SELECT m.name, m.key, m.value FROM registered_model_tags m WHERE {self._here('m')} {where} AND m.key GLOB ?",
            (*self._workspace, *values, f"{TAG_PREFIX}*"),
        ):
            tags.setdefault(name, {})[str(key)] = str(value)
        return [
            RegisteredModel(
                name,
                aliases.get(name, {}),
                versions.get(name, {}),
                newest=newest.get(name, ""),
                tags=tags.get(name, {}),
            )
            for (name,) in rows
        ]

    def version(self, model: str, version: int) -> list[Any]:
        return self._rows(
            f"SELECT {_VERSION}, v.storage_location FROM model_versions v "
            f"WHERE {self._here('v')} AND v.name = ? AND v.version = ? AND v.current_stage IS NOT ?",
            (*self._workspace, model, version, _DELETED),
        )

    def newest(self, model: str, count: int) -> list[str]:
        rows = self._rows(
            f"SELECT v.version FROM model_versions v WHERE {self._here('v')} AND v.name = ? AND v.current_stage IS NOT ? "
            "ORDER BY v.version DESC LIMIT ?",
            (*self._workspace, model, _DELETED, count),
        )
        return [str(version) for (version,) in rows]

    def tags(self, model: str, version: int) -> dict[str, str]:
        rows = self._rows(
            f"SELECT t.key, t.value FROM model_version_tags t WHERE {self._here('t')} AND t.name = ? AND t.version = ?",
            (*self._workspace, model, version),
        )
        return {str(key): str(value) for key, value in rows}

    def _aliases(self, where: str, values: tuple[str, ...]) -> dict[str, dict[str, str]]:
        """Few aliases of each model: those of roles, and one other, which a sentence may name."""
        found: dict[str, dict[str, str]] = {}
        rows = self._rows(
            f"SELECT m.name, m.alias, m.version FROM registered_model_aliases m WHERE {self._here('m')} {where} "
            f"AND {self._roles.gives('m')} "
            f"UNION ALL SELECT m.name, min(m.alias), max(m.version) FROM registered_model_aliases m "
            f"WHERE {self._here('m')} {where} AND NOT {self._roles.gives('m')} GROUP BY m.name",
            (*self._workspace, *values, *self._roles.bound) * 2,
        )
        for name, alias, version in rows:
            found.setdefault(name, {})[alias] = str(version)
        return found

    def _aliased(self, where: str, values: tuple[str, ...]) -> dict[str, dict[str, RegisteredVersion]]:
        """The versions that have an alias of a role, by model."""
        joined = "a.name = m.name AND a.version = m.version" + (
            " AND a.workspace = m.workspace" if self._workspace else ""
        )
        bound = (*self._roles.bound, *self._workspace, *values)
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for name, version, key, value in self._rows(
            f"SELECT DISTINCT m.name, m.version, m.key, m.value FROM model_version_tags m JOIN registered_model_aliases a "
            f"ON {joined} AND {self._roles.gives('a')} WHERE {self._here('m')} {where}",
            bound,
        ):
            tags.setdefault((name, version), {})[str(key)] = str(value)
        found: dict[str, dict[str, RegisteredVersion]] = {}
        for row in self._rows(
            f"SELECT DISTINCT {_VERSION.replace('v.', 'm.')} FROM model_versions m JOIN registered_model_aliases a "
            f"ON {joined} AND {self._roles.gives('a')} WHERE {self._here('m')} {where} AND m.current_stage IS NOT ?",
            (*bound, _DELETED),
        ):
            found.setdefault(row[0], {})[str(row[1])] = _registered(self._shown, row, tags.get((row[0], row[1]), {}))
        return found

    def _here(self, table: str) -> str:
        return f"{table}.workspace = ?" if self._workspace else "1"

    def _rows(self, query: str, values: Sequence[object]) -> list[Any]:
        return self._connection.execute(query, tuple(values)).fetchall()


class _Writing:
    """Changes within a transaction, as MLflow's own store makes them."""

    def __init__(self, tables: _Tables, connection: sqlite3.Connection) -> None:
        self._tables = tables
        self._connection = connection

    def make(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        """Makes them all, if what is expected is true."""
        found = self._tables.models("AND m.name = ?", (model,))
        if not found:
            raise NotFoundError(f"there is no model {model!r} in the registry any more")
        number = int(expected.version or 0)
        tags = self._tables.tags(model, number) if number else {}
        check_expected(expected, found[0], RegisteredVersion("", tags, "READY"))
        for change in changes:
            match change:
                case SetAlias(alias, version):
                    self._put("registered_model_aliases", {"name": model, "alias": alias}, {"version": int(version)})
                case DeleteAlias(alias):
                    self._delete("registered_model_aliases", {"name": model, "alias": alias})
                case SetTag(version, key, value):
                    self._put(*_tag(model, version, key), {"value": value})
                case DeleteTag(version, key):
                    self._delete(*_tag(model, version, key))

    def _put(self, table: str, key: dict[str, object], value: dict[str, object]) -> None:
        self._delete(table, key)
        row = {**self._tables.here, **key, **value}
        self._connection.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
        )

    def _delete(self, table: str, key: dict[str, object]) -> None:
        row = {**self._tables.here, **key}
        where = " AND ".join(f"{name} = ?" for name in row)
        self._connection.execute(f"DELETE FROM {table} WHERE {where}", tuple(row.values()))


def _tag(model: str, version: str, key: str) -> tuple[str, dict[str, object]]:
    """The table and the row of a tag; of the model where `version` is ""."""
    if not version:
        return "registered_model_tags", {"name": model, "key": key}
    return "model_version_tags", {"name": model, "version": int(version), "key": key}


def _registered(shown: str, row: Any, tags: dict[str, str]) -> RegisteredVersion:
    name, version, created, source, run, status = row
    return RegisteredVersion(
        identity_of(shown, (name, str(version)), created=created, source=source, run=run), tags, str(status or "READY")
    )
