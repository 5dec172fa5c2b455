"""The tables. A change of one is a new file in `migrations/versions/` as well.

Timestamps are ISO 8601 text in UTC, so that they sort on every database. The widths leave room: an id of a client has
at most 128 characters (`wire.ID_PATTERN`), a timestamp has 32. SQLite ignores widths.
"""

from sqlalchemy import text
from sqlalchemy.schema import Column, Index, MetaData, Table, UniqueConstraint
from sqlalchemy.types import JSON, BigInteger, Boolean, Float, Integer, String, Text

metadata = MetaData()
UNFINISHED = text("status <> 'done'")
"""As text: a database uses a partial index only for a statement that names the same condition."""

sessions = Table(
    "sessions",
    metadata,
    # The id that the client chose, or a UUID.
    Column("id", String(128), primary_key=True),
    # The name that users see; empty without a first message.
    Column("title", Text, nullable=False, default=""),
    # The title, casefolded for the search: databases fold only some of the letters that users write.
    Column("title_folded", Text, nullable=False, default=""),
    # The origin of the title: message, model or user.
    Column("titled_by", String(16), nullable=False, default="message", server_default="message"),
    # A text of the user; empty by default.
    Column("description", Text, nullable=False, default=""),
    # The agent that holds the conversation.
    Column("agent", String(64), nullable=False),
    # The messages of the thread after its last run.
    Column("message_count", Integer, nullable=False, default=0),
    # The open calls and the interrupt that they resume (`Pause`); null: the thread waits for no client.
    Column("pause", JSON(none_as_null=True)),
    # When the session was created.
    Column("created_at", String(40), nullable=False),
    # When the session was created, or its thread last changed.
    Column("last_activity", String(40), nullable=False),
    # When a user hid the session; null: it is visible. The rows stay until the id is used again.
    Column("deleted_at", String(40)),
    # The replica that has the lease; null: none has.
    Column("lease_owner", String(64)),
    # The fencing token: it grows with each lease, also when the session is erased and created again.
    Column("lease_epoch", BigInteger, nullable=False, default=0, server_default="0"),
    # The end of the lease, in seconds since 1970 by the database's clock; null: there is no lease.
    Column("lease_expires_at", Float),
    # The checkpoint of the thread that this row describes; null: the latest one, for a very large or very old thread.
    Column("checkpoint_id", String(64)),
    # The runs since the old checkpoints of the thread were deleted.
    Column("runs_since_prune", Integer, nullable=False, default=0, server_default="0"),
    # The usage of all model calls (`UsageTotals`), by agent and by purpose; null: no model was called.
    Column("usage", JSON(none_as_null=True)),
    Index("sessions_by_activity", "deleted_at", "last_activity"),
    Index("sessions_by_owner", "lease_owner"),
)
"""The conversations. A row describes its thread as it was after the last run, and says which replica may change it."""

runs = Table(
    "runs",
    metadata,
    # A UUID; the ids of events begin with it.
    Column("id", String(40), primary_key=True),
    # The session of the run.
    Column("session_id", String(128), nullable=False),
    # The name under which a retry finds the run (`RunRequest.key`); null: a retry is a new run.
    Column("idempotency_key", String(400)),
    # A hash of the message: another message under the same key is no retry.
    Column("body_hash", String(64), nullable=False),
    # The message of the client, without nulls.
    Column("input", JSON, nullable=False),
    # The parts of the stream that the client opted in to (`wire.StreamOptions`).
    Column("options", JSON, nullable=False),
    # The pause that the message answers or ends; null: there was none, or the run is still queued.
    Column("pause", JSON(none_as_null=True)),
    # The state of the run (`sessions.runs.status.RunStatus`).
    Column("status", String(16), nullable=False),
    # The number of the current attempt, from 1; each attempt numbers its events in a range of its own.
    Column("attempts", Integer, nullable=False, default=1),
    # The events that a retry or a late reader gets, each as number, name and data; null: the run is not done.
    Column("events", JSON(none_as_null=True)),
    # When the message was accepted.
    Column("created_at", String(40), nullable=False),
    # The place among the runs of the session, from 1.
    Column("number", BigInteger, nullable=False),
    # The epoch of the lease under which the run last began, was recovered or ended; 0: it has not begun.
    Column("lease_epoch", BigInteger, nullable=False, default=0, server_default="0"),
    # The times that the process died while it executed the run; a hand-over does not count.
    Column("recovery_attempts", Integer, nullable=False, default=0, server_default="0"),
    # The reason of a request to stop the run: cancel or interrupt; null: there is no request.
    Column("stop_requested", String(16)),
    # The usage of the run's model calls (`UsageTotals`), with each call; null: no model was called.
    Column("usage", JSON(none_as_null=True)),
    # When the outcome was stored; null: the run is not done.
    Column("finished_at", String(40)),
    UniqueConstraint("session_id", "idempotency_key"),
    UniqueConstraint("session_id", "number"),
    Index("runs_unfinished", "session_id", "number", postgresql_where=UNFINISHED, sqlite_where=UNFINISHED),
)
"""The messages of clients and their processing, one row for each message."""

audit_log = Table(
    "audit_log",
    metadata,
    # The session of the call.
    Column("session_id", String(128), primary_key=True),
    # The place among the entries of the session, from 1.
    Column("seq", Integer, primary_key=True),
    # When the decision was made.
    Column("timestamp", String(40), nullable=False),
    # The call that was decided on.
    Column("call_id", String(256), nullable=False),
    # The tool of the call.
    Column("tool_name", String(64), nullable=False),
    # The agent that made the call.
    Column("agent", String(64), nullable=False),
    # The arguments of the model, with invisible characters escaped, as all texts of an entry.
    Column("original_arguments", JSON, nullable=False),
    # The word for the decision: approve, edit, edit_refused, reject, failed, cancel or expire.
    Column("decision", String(16), nullable=False),
    # The arguments that the user replaced; null: it is no edit.
    Column("modified_arguments", JSON(none_as_null=True)),
    # The user's reason, or the service's; null: there is none.
    Column("feedback", Text),
    # The source of the decision: hitl_decision, tool_result, grant, policy or system.
    Column("decided_by", String(16), nullable=False),
    # The rule of the policy that applied to the call, or the grant.
    Column("rule", String(64), nullable=False),
    # SHA-256 over the entry and the hash of the entry before it.
    Column("hash", String(64), nullable=False),
)
"""The decisions on tool calls. Entries are only added; the hashes make a later change visible."""

audit_results = Table(
    "audit_results",
    metadata,
    # The session of the call.
    Column("session_id", String(128), primary_key=True),
    # The place among the results of the session, from 1.
    Column("number", Integer, primary_key=True),
    # The entry of `audit_log` that allowed the call.
    Column("seq", Integer, nullable=False),
    # When the result came.
    Column("timestamp", String(40), nullable=False),
    # SHA-256 over the result; the result itself is part of the conversation.
    Column("result_hash", String(64), nullable=False),
    # SHA-256 over this row, the hash of the entry, and the hash of the result before it.
    Column("hash", String(64), nullable=False),
)
"""The results of calls that the audit allowed: a chain of its own, so that no entry is ever changed."""

grants = Table(
    "grants",
    metadata,
    # A UUID; the audit calls the rule `grant.<id>`.
    Column("id", String(40), primary_key=True),
    # The session in which the grant applies.
    Column("session_id", String(128), nullable=False),
    # The call whose approval made the grant.
    Column("call_id", String(256), nullable=False),
    # The agent that may make the calls.
    Column("agent", String(64), nullable=False),
    # The tool that it may call.
    Column("tool_name", String(64), nullable=False),
    # The path or command that is allowed, or a glob of them (`policy.grants.Grant`).
    Column("pattern", Text, nullable=False),
    # Whether the pattern is the call itself, and no glob.
    Column("is_exact", Boolean, nullable=False),
    # The folder of the approved command; null: the call named none.
    Column("cwd", Text),
    # Whether the approved command runs in a shell.
    Column("shell", Boolean, nullable=False),
    # SHA-256 over the arguments of the approved call; null: the grant is of an earlier version.
    Column("arguments_hash", String(64)),
    # The life of the grant: turn or session.
    Column("scope", String(16), nullable=False),
    # The calls that may still use the grant; null: any number.
    Column("uses_left", Integer),
    # When the grant ends by itself; null: never.
    Column("expires_at", String(40)),
    # When the user decided.
    Column("created_at", String(40), nullable=False),
    # When the grant was revoked, or its turn ended; null: it was not. The row stays, because the audit names it.
    Column("ended_at", String(40)),
    Index("grants_by_session", "session_id", "ended_at"),
)
"""The approvals that users asked to remember."""

calls = Table(
    "calls",
    metadata,
    # The session of the call.
    Column("session_id", String(128), primary_key=True),
    # The id that the model gave the call.
    Column("call_id", String(128), primary_key=True),
    # The tool of the call.
    Column("tool_name", String(64), nullable=False),
    # The agent that made the call.
    Column("agent", String(64), nullable=False),
    # The arguments of the model, with invisible characters escaped.
    Column("arguments", JSON, nullable=False),
    # The rule of the policy that applied to the call, or the grant.
    Column("rule", String(64), nullable=False),
    # The state of the call: asked, approved, sent, answered, rejected, failed, cancelled or expired.
    Column("status", String(16), nullable=False),
    # When the model made the call.
    Column("proposed_at", String(40), nullable=False),
    # The last decision, in the words of the audit; null: nobody decided.
    Column("decision", String(16)),
    # The source of the decision, in the words of the audit.
    Column("decided_by", String(16)),
    # When the decision was made.
    Column("decided_at", String(40)),
    # When the call was first sent to the IDE to be run; null: it was not.
    Column("sent_at", String(40)),
    # When the call was closed, by a result or otherwise; null: it is open.
    Column("answered_at", String(40)),
    Index("calls_by_status", "status", "sent_at"),
)
"""The tool calls that a client had to act on."""

routings = Table(
    "routings",
    metadata,
    # The run in which the request was classified.
    Column("run_id", String(40), primary_key=True),
    # The place among the classifications of the run, from 0.
    Column("number", Integer, primary_key=True),
    # The session of the run.
    Column("session_id", String(128), nullable=False),
    # The beginning of the request.
    Column("text", Text, nullable=False),
    # The agent that was chosen.
    Column("agent", String(64), nullable=False),
    # The confidence of the choice: high, medium or low.
    Column("confidence", String(16), nullable=False),
    # The source of the choice (`classification_method`): llm, keywords or cache.
    Column("method", String(16), nullable=False),
    # The agent that the keywords alone choose.
    Column("expected", String(64), nullable=False),
    # The agent that the user picked instead, before the next message; null: none.
    Column("override", String(64)),
    # When the run of the classification ended.
    Column("created_at", String(40), nullable=False),
    Index("routings_by_session", "session_id", "created_at"),
)
"""The classifications of requests, to compare them with the keywords and with the user's own choice."""
