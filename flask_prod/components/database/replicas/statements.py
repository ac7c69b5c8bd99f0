"""Which statements only read: a replica is asked nothing else.

A function that is not known to be harmless counts as one that may write. A query that names the replica itself
vouches for functions of its own and for text; what is known to lock, to count or to notify stays refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement

_MOST_KNOWN = 2000
"""Shapes of statements that are remembered; an application has some hundreds."""

_QUERIES = frozenset({"select", "compound_select", "select_statement_grouping"})
_WRITTEN = frozenset({"textclause", "textual_select"})

_PURE = """
    current_database current_schema inet_server_addr inet_server_port pg_is_in_recovery version
    abs acos age array array_agg array_length array_to_string ascii asin atan atan2 avg bit_length bool_and
    bool_or btrim cardinality cast ceil ceiling char_length character_length chr coalesce concat concat_ws
    cos count cube cume_dist current_date current_time current_timestamp date date_part date_trunc datetime
    degrees dense_rank every exp extract first_value floor format generate_series greatest group_concat
    grouping_sets height hex ifnull iif instr isfinite json_agg json_array json_array_length
    json_build_array json_build_object json_each json_extract json_object json_object_agg json_typeof
    jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text
    jsonb_object_agg jsonb_path_exists jsonb_path_query jsonb_typeof julianday lag last_value lead least
    left length ln localtime localtimestamp log lower lpad ltrim make_date max md5 min mod mode now
    nth_value ntile nullif octet_length overlay percent_rank percentile_cont percentile_disc
    phraseto_tsquery pi plainto_tsquery position pow power quote_ident quote_literal radians random rank
    regexp_match regexp_matches regexp_replace repeat replace reverse right rollup round row_number
    row_to_json rpad rtrim sign similarity sin split_part sqrt stddev stddev_pop stddev_samp strftime
    string_agg string_to_array strpos substr substring sum sysdate tan time timezone to_char to_date to_json
    to_jsonb to_number to_timestamp to_tsquery to_tsvector total translate trim trunc ts_headline ts_rank
    ts_rank_cd typeof unicode unixepoch unnest upper user var_pop var_samp variance websearch_to_tsquery
    width word_similarity
"""

PURE = frozenset(_PURE.split())
"""Functions without side effects: those that queries use most, of PostgreSQL, MySQL and SQLite."""

_EFFECTS = re.compile(
    r"(?:pg_(?:try_)?advisory\w*|next_?val(?:ue)?|setval|currval|lastval|lo_\w+|pg_notify|dblink\w*|set_config"
    r"|pg_(?:terminate|cancel)_backend|pg_(?:create|drop|copy|logical|replication|switch|promote|reload|rotate"
    r"|file|export|wal_replay)\w*|txid_current|pg_current_xact_id|pg_stat_reset\w*|(?:get|release|is_free|is_used)_lock"
    r"|release_all_locks|last_insert_id|master_pos_wait|load_extension)",
    re.IGNORECASE,
)
"""Functions that lock, count, notify or reach beyond the query; a standby runs some of them without a word."""

_CALLED = re.compile(rf"\b{_EFFECTS.pattern}\s*\(", re.IGNORECASE)
_HARMLESS_NOISE = re.compile(r"/\*.*?\*/|--[^\n]*|'(?:[^']|'')*'", re.DOTALL)
_BEGINS_TO_READ = re.compile(r"[\s(]*(?:select|with|values|table)\b", re.IGNORECASE)
_WRITES = re.compile(
    r"\b(?:insert|update|delete|merge|into|share|lock|call|copy|truncate|create|alter|drop|grant|revoke|do|set)\b|;\s*\S",
    re.IGNORECASE,
)

_HARMLESS = re.compile(
    r"[\s(]*(?:select|with|values|table|show|explain|set|reset|pragma|begin|start|savepoint|release|commit|rollback|lock"
    r"|declare|fetch|close|describe|analyze|listen|unlisten|discard)\b",
    re.IGNORECASE,
)
_VERBS = re.compile(
    r"\b(?:insert|update|delete|merge|replace\s+into|into|copy|call|truncate|create|alter|drop)\b", re.IGNORECASE
)
_CHANGES = "_flask_prod_changes_something"

_ADDED = ("_prefixes", "_suffixes", "_statement_hints")
"""Where a query keeps text that is put in front of it or behind it: `FOR UPDATE` may come that way too."""

_known: dict[Hashable, bool] = {}  # a judgement belongs to a statement, whichever application asks


def reads_only(statement: Any, vouched: bool = False) -> bool:
    """Tell whether *statement* only reads; *vouched* when the query itself asks for a replica.

    A judgement costs as much as a query and is remembered by SQLAlchemy's own key of the statement.
    """
    key = statement._generate_cache_key()  # kept with the statement, and needed anyway by SQLAlchemy's own cache
    if key is None:
        return _judge(statement, vouched)
    name = (key.key, vouched)
    found = _known.get(name)
    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        found = _known[name] = _judge(statement, vouched)
    return found


def text_reads_only(text: str) -> bool:
    """Tell whether a statement written by hand looks like one that only reads."""
    bare = _HARMLESS_NOISE.sub(" ", text)
    return bool(_BEGINS_TO_READ.match(bare)) and not _WRITES.search(bare) and not _CALLED.search(bare)


def _judge(statement: Any, vouched: bool) -> bool:
    kind = getattr(statement, "__visit_name__", "")
    if kind in _WRITTEN:
        return vouched and text_reads_only(str(getattr(statement, "element", statement)))
    inner = getattr(statement, "element", None) if kind not in _QUERIES else None
    if inner is not None:  # rows of another statement as objects: select(Product).from_statement(...)
        return _judge(inner, vouched)
    return kind in _QUERIES and all(_is_harmless(part, vouched) for part in visitors.iterate(statement))


def _is_harmless(part: Any, vouched: bool) -> bool:
    kind = getattr(part, "__visit_name__", "")
    if kind in ("insert", "update", "delete", "sequence") or getattr(part, "_for_update_arg", None) is not None:
        return False
    if isinstance(part, FunctionElement):
        name = str(getattr(part, "name", "")).lower()
        own = name not in PURE or tuple(getattr(part, "packagenames", ())) not in ((), ("pg_catalog",))
        return not own or (vouched and not _EFFECTS.fullmatch(name))
    if kind in _WRITTEN or getattr(part, "is_literal", False):
        return _is_harmless_text(str(getattr(part, "text", part)), vouched)
    strange = any(getattr(part, name, ()) for name in _ADDED) or not type(part).__module__.startswith(
        "sqlalchemy."
    )
    return vouched or not strange


def _is_harmless_text(text: str, vouched: bool) -> bool:
    """Judge text within a query, as in `order_by(text("price"))`: without a parenthesis it calls nothing."""
    return not _CALLED.search(text) if vouched else "(" not in text and not _WRITES.search(text)


def changes(compiled: Any, text: str) -> bool:
    """Tell whether a statement that was executed may have changed something; kept with its compiled form.

    A function that nobody knows counts as one that reads here: most do, and who calls another may say so.
    """
    if compiled is None:
        return _text_changes(text)
    known: bool | None = getattr(compiled, _CHANGES, None)
    if known is None:
        known = _changes(getattr(compiled, "statement", None), text)
        setattr(compiled, _CHANGES, known)
    return known


def _changes(statement: Any, text: str) -> bool:
    if getattr(statement, "__visit_name__", "") not in _QUERIES:
        return _text_changes(text)
    return any(_is_effect(part) for part in visitors.iterate(statement))


def _is_effect(part: Any) -> bool:
    kind = getattr(part, "__visit_name__", "")
    if isinstance(part, FunctionElement):
        return bool(_EFFECTS.fullmatch(str(getattr(part, "name", ""))))
    return kind in ("insert", "update", "delete", "sequence")


@lru_cache(maxsize=512)
def _text_changes(text: str) -> bool:
    bare = _HARMLESS_NOISE.sub(" ", text)
    return not _HARMLESS.match(bare) or bool(_VERBS.search(bare)) or bool(_CALLED.search(bare))
