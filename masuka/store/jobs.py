"""Rows of jobs and of their events: what was asked, how far it is, what became of it.

Which state may follow which is decided in `masuka.jobs.queue`; here a write only names
the states it expects, so that two writers never both succeed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import broken_rules, decode, encode, get_row, list_rows, now_at, visible


@dataclass(frozen=True)
class Job:
    """One job; times are ISO 8601 in UTC, `pid_started` is seconds since the epoch.

    `fence` numbers the attempts: only events of the present one count. `asked` is what a
    person wants of the running job: '', 'cancel' or 'pause'.
    """

    id: int
    user_id: int
    kind: str
    lane: str
    state: str
    title: str
    request: dict[str, Any]
    params: dict[str, Any]
    character_id: int | None
    dataset_id: int | None
    run_id: int | None
    stage: str
    step: int
    total: int
    seconds_per_step: float | None
    message: str
    error: dict[str, Any] | None
    result: dict[str, Any] | None
    asked: str
    attempt: int
    failures_without_checkpoint: int
    fence: int
    pid: int | None
    pid_started: float | None
    events_offset: int
    events_seen: int
    position: float
    idempotency_key: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    change: int


@dataclass(frozen=True)
class JobEvent:
    """A transition, a note or an artefact of a job."""

    id: int
    job_id: int
    at: str
    type: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Pulse:
    """The few columns of a job that are looked at again and again while it runs."""

    id: int
    kind: str
    lane: str
    state: str
    asked: str
    fence: int
    pid: int | None
    pid_started: float | None
    events_offset: int


_PULSE = "SELECT id, kind, lane, state, asked, fence, pid, pid_started, events_offset FROM jobs"
COLUMNS = frozenset(f.name for f in fields(Job))


def add_job(
    db: Store,
    *,
    actor: Actor,
    kind: str,
    lane: str,
    title: str,
    request: Mapping[str, Any],
    params: Mapping[str, Any],
    character_id: int | None = None,
    dataset_id: int | None = None,
    run_id: int | None = None,
    idempotency_key: str | None = None,
) -> Job:
    """The queued job; the one of before when the person's key was used already."""
    key = None if idempotency_key is None else _own_key(actor, idempotency_key)
    values = encode({
        "user_id": actor.user_id, "kind": kind, "lane": lane, "state": "queued", "title": title,
        "request": request, "params": params, "character_id": character_id, "dataset_id": dataset_id,
        "run_id": run_id, "idempotency_key": key, "created_at": now_at(),
    })  # fmt: skip
    with db.write() as connection, broken_rules():
        last = connection.execute("SELECT COALESCE(MAX(position), 0) FROM jobs").fetchone()
        values["position"] = last[0] + 1
        names, slots = ", ".join(values), ", ".join(f":{name}" for name in values)
        insert = f"INSERT INTO jobs ({names}) VALUES ({slots})"  # noqa: S608 - the names above
        added = connection.execute(
            f"{insert} ON CONFLICT (idempotency_key) DO NOTHING RETURNING id", values
        ).fetchone()
        if added is None:
            return _one(connection.execute("SELECT * FROM jobs WHERE idempotency_key = ?", [key]))
        add_job_event(db, id=added[0], type="state", data={"to": "queued"})
        return _one(connection.execute("SELECT * FROM jobs WHERE id = ?", [added[0]]))


def get_job(db: Store, *, actor: Actor, id: int) -> Job:
    """One job; raises NotFound when there is none or it is another person's."""
    return get_row(db, Job, table="jobs", noun="job", id=id, actor=actor)


def find_job(db: Store, *, actor: Actor, idempotency_key: str) -> Job | None:
    """The job that the person added with that key, or None."""
    with db.read() as connection:
        found = _many(
            connection.execute(
                "SELECT * FROM jobs WHERE idempotency_key = ?", [_own_key(actor, idempotency_key)]
            )
        )
    return found[0] if found else None


def list_jobs(
    db: Store,
    *,
    actor: Actor,
    character_id: int | None = None,
    dataset_id: int | None = None,
    run_id: int | None = None,
    states: Sequence[str] | None = None,
    kind: str | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[Job]:
    """The jobs that the person may see, the newest first."""
    where: dict[str, Any] = {}
    columns = {"character_id": character_id, "dataset_id": dataset_id, "run_id": run_id, "kind": kind}
    for column, value in columns.items():
        if value is not None:
            where[f"{column} = ?"] = value
    if before_id is not None:
        where["id < ?"] = before_id
    if states is not None:
        where["state IN (SELECT value FROM json_each(?))"] = json.dumps(list(states))
    return list_rows(db, Job, table="jobs", actor=actor, where=where, limit=limit)


def count_jobs(db: Store, *, actor: Actor) -> dict[str, int]:
    """How many of the person's jobs are in each state."""
    with db.read() as connection:
        rows = connection.execute(
            f"SELECT state, COUNT(*) FROM jobs WHERE {visible(actor, 'jobs')} GROUP BY state"  # noqa: S608
        ).fetchall()
    return {row[0]: row[1] for row in rows}


def has_queued_job(db: Store, *, lane: str, but: Sequence[str] = ()) -> bool:
    """Whether anything waits in the lane that may start and is of no kind in `but`."""
    with db.read() as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM jobs JOIN users ON users.id = jobs.user_id "
            "WHERE state = 'queued' AND lane = ? AND active = 1 AND kind NOT IN (SELECT value FROM json_each(?)))",
            [lane, json.dumps(but)],
        ).fetchone()
    return bool(row[0])


def is_of_locked(db: Store, *, id: int) -> bool:
    """Whether the job waits and its person is locked out."""
    with db.read() as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM jobs JOIN users ON users.id = jobs.user_id "
            "WHERE jobs.id = ? AND state = 'queued' AND active = 0)",
            [id],
        ).fetchone()
    return bool(row[0])


def list_unfinished(db: Store, *, user_id: int) -> list[Job]:
    """Every job of the person that has not ended, the oldest first."""
    with db.read() as connection:
        return _many(
            connection.execute(
                "SELECT * FROM jobs WHERE user_id = ? AND state NOT IN ('done', 'failed', 'cancelled') ORDER BY id",
                [user_id],
            )
        )


def get_pulse(db: Store, *, id: int) -> Pulse | None:
    """How any person's job stands; None when there is no such job."""
    with db.read() as connection:
        row = connection.execute(f"{_PULSE} WHERE id = ?", [id]).fetchone()
    return None if row is None else decode(Pulse, row)


def list_running(db: Store) -> list[Pulse]:
    """How everybody's running jobs stand."""
    with db.read() as connection:
        return [decode(Pulse, row) for row in connection.execute(f"{_PULSE} WHERE state = 'running'")]


def ended_before(db: Store, *, at: str) -> set[int]:
    """Ids of everybody's jobs that were done, failed or cancelled before that moment."""
    with db.read() as connection:
        rows = connection.execute(
            "SELECT id FROM jobs WHERE state IN ('done', 'failed', 'cancelled') AND finished_at < ?", [at]
        ).fetchall()
    return {int(row[0]) for row in rows}


def claim_job(
    db: Store,
    *,
    lane: str | None = None,
    but: Sequence[str] = (),
    id: int | None = None,
    pid: int | None = None,
    pid_started: float | None = None,
) -> Job | None:
    """The next queued job of the lane, or the job `id`, now running; else None.

    One statement, so that of many claimants one gets it. People take turns in a lane: the
    one whose last start is longest ago comes first; each one's jobs run in order. Those of
    a person who is locked out wait, and in the lane those of the kinds in `but`.
    """
    with db.write() as connection:
        claimed = _many(
            connection.execute(
                "UPDATE jobs SET state = 'running', fence = fence + 1, attempt = attempt + 1, asked = '', "
                "error = NULL, result = NULL, message = '', stage = '', step = 0, total = 0, "
                "seconds_per_step = NULL, events_offset = 0, events_seen = 0, pid = :pid, "
                "pid_started = :pid_started, started_at = :now, finished_at = NULL "
                "WHERE state = 'queued' AND user_id IN (SELECT id FROM users WHERE active = 1) AND id = "
                "COALESCE(:id, (SELECT jobs.id FROM jobs JOIN users ON users.id = jobs.user_id LEFT JOIN "
                "(SELECT user_id, MAX(started_at) AS last_at FROM jobs WHERE lane = :lane GROUP BY user_id) "
                "AS turns ON turns.user_id = jobs.user_id WHERE state = 'queued' AND lane = :lane AND active = 1 "
                "AND kind NOT IN (SELECT value FROM json_each(:but)) "
                "ORDER BY COALESCE(last_at, ''), position, jobs.id LIMIT 1)) "
                "RETURNING *",
                {"pid": pid, "pid_started": pid_started, "now": now_at(), "id": id, "lane": lane, "but": json.dumps(but)},
            )
        )
    return claimed[0] if claimed else None


def set_job(
    db: Store,
    *,
    id: int,
    states: Iterable[str] | None = None,
    fence: int | None = None,
    **changed: Any,
) -> bool:
    """Whether the job was changed: only in one of the states and that attempt."""
    unknown = changed.keys() - COLUMNS
    if unknown:
        raise TypeError(f"jobs has no column {sorted(unknown)}")
    wanted: dict[str, Any] = {"id = ?": id}
    if states is not None:
        wanted["state IN (SELECT value FROM json_each(?))"] = json.dumps(list(states))
    if fence is not None:
        wanted["fence = ?"] = fence
    columns, where = ", ".join(f"{name} = ?" for name in changed), " AND ".join(wanted)
    update = f"UPDATE jobs SET {columns} WHERE {where} RETURNING id"  # noqa: S608 - names of COLUMNS
    with db.write() as connection, broken_rules():
        after = connection.execute(update, [*encode(changed).values(), *wanted.values()]).fetchall()
    return bool(after)


def delete_job(db: Store, *, actor: Actor, id: int, states: Iterable[str]) -> bool:
    """Whether the job was deleted: only one of the person's, in one of the states, is."""
    with db.write() as connection:
        gone = connection.execute(
            f"DELETE FROM jobs WHERE id = ? AND {visible(actor, 'jobs')} "  # noqa: S608
            "AND state IN (SELECT value FROM json_each(?)) RETURNING id",
            [id, json.dumps(list(states))],
        ).fetchall()
    return bool(gone)


def add_job_event(db: Store, *, id: int, type: str, data: Mapping[str, Any], at: str | None = None) -> None:
    """Adds one line to the history of the job `id`."""
    with db.write() as connection:
        connection.execute(
            "INSERT INTO job_events (job_id, at, type, data) VALUES (?, ?, ?, ?)",
            [id, at or now_at(), type, json.dumps(data, default=str)],
        )


def list_job_events(db: Store, *, actor: Actor, id: int, type: str | None = None) -> list[JobEvent]:
    """What happened to the job, in order; raises NotFound."""
    get_job(db, actor=actor, id=id)
    with db.read() as connection:
        rows = connection.execute(
            "SELECT id, job_id, at, type, data FROM job_events WHERE job_id = ? AND (? IS NULL OR type = ?) "
            "ORDER BY id",
            [id, type, type],
        ).fetchall()
    return [decode(JobEvent, row) for row in rows]


def _own_key(actor: Actor, key: str) -> str:
    return f"{actor.user_id}:{key}"


def _many(cursor: Any) -> list[Job]:
    return [decode(Job, row) for row in cursor.fetchall()]


def _one(cursor: Any) -> Job:
    return _many(cursor)[0]
