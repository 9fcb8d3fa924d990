"""Configurations: defaults filled in, and wrong ones refused as the server refuses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from ...errors import ApiError
from ...subjects import covers, intersection
from ..infos import filters_of

Config = dict[str, Any]

_SECOND = 1_000_000_000  # nanoseconds
_SERVERS_OWN = "_nats."  # metadata keys the server sets itself and does not compare
_STREAM_DEFAULTS: Config = {
    "retention": "limits",
    "max_consumers": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "discard": "old",
    "storage": "file",
    "num_replicas": 1,
    "compression": "none",
    "allow_direct": False,
    "mirror_direct": False,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_rollup_hdrs": False,
    "consumer_limits": {},
    "allow_msg_ttl": False,
    "allow_msg_schedules": False,
    "allow_atomic": False,
}
_CONSUMER_DEFAULTS: Config = {
    "deliver_policy": "all",
    "ack_policy": "none",
    "ack_wait": 30 * _SECOND,
    "max_deliver": -1,
    "replay_policy": "instant",
    "max_waiting": 512,
    "max_ack_pending": 1000,
    "num_replicas": 0,
}
# Field, and its name in the server's error text.
_STREAM_FIXED = (("storage", "storage type"), ("retention", "retention policy"))
_NEVER_OFF = (("allow_msg_schedules", "message schedules"), ("allow_msg_ttl", "message TTL"))
_CONSUMER_FIXED = (
    ("deliver_policy", "deliver policy"),
    ("opt_start_seq", "start sequence"),
    ("opt_start_time", "start time"),
    ("ack_policy", "ack policy"),
    ("replay_policy", "replay policy"),
    ("max_waiting", "max waiting"),
    ("mem_storage", "storage type"),
)
_START_FIELDS = (
    ("by_start_sequence", "opt_start_seq", "start sequence"),
    ("by_start_time", "opt_start_time", "start time"),
)
# Allowed values of these fields if they are set; other values of the server are not built here.
_STREAM_BUILT: dict[str, tuple[Any, ...]] = {
    "retention": ("limits",),
    "max_msgs": (-1, 0),
    "max_bytes": (-1, 0),
    "mirror": (),
    "republish": (),
    "subject_transform": (),
}
_CONSUMER_BUILT: dict[str, tuple[Any, ...]] = {
    "ack_policy": ("explicit", "none"),
    "max_deliver": (-1, 0),
    "deliver_subject": (),
    "backoff": ([], ()),
    "priority_policy": ("none", "pinned_client"),
}
_POLICIES = ("all", "new", "last", "by_start_sequence", "by_start_time")


def refusal(verb: str, text: str, code: int, err_code: int) -> ApiError:
    """Make an error with the text and codes of the JetStream API."""
    return ApiError(f"{verb}: {text} ({err_code})", code=code, err_code=err_code)


def no_stream(verb: str) -> ApiError:
    """Make the refusal of a request for a stream that does not exist."""
    return refusal(verb, "stream not found", 404, 10059)


def full_stream_config(requested: Mapping[str, Any]) -> Config:
    """Complete a stream's configuration. Raises ApiError if it contradicts itself."""
    verb = f"STREAM {requested['name']}"
    config: Config = {**_STREAM_DEFAULTS, **requested, "metadata": _metadata(requested)}
    _check_built(verb, config, _STREAM_BUILT)
    if not config.get("sources"):
        config["subjects"] = list(config.get("subjects") or [config["name"]])
        config["duplicate_window"] = config.get("duplicate_window") or _default_window(config)
    if config["allow_msg_schedules"]:
        if config.get("sources"):
            text = "stream source can not also schedule messages"
            raise refusal(verb, text, 400, 10187)
        config["allow_rollup_hdrs"] = True
    for one, other in combinations(config.get("subjects") or (), 2):
        if intersection(one, other) is not None:
            raise refusal(verb, f'subject "{one}" overlaps with "{other}"', 500, 10052)
    if 0 < config["max_age"] < config.get("duplicate_window", 0):
        raise refusal(verb, "duplicates window can not be larger then max age", 500, 10052)
    if config["num_replicas"] > 1:
        raise refusal(verb, "replicas > 1 not supported in non-clustered mode", 500, 10074)
    return config


def check_overlap(config: Config, others: Sequence[Config]) -> None:
    """Raise ApiError if another stream stores some of these subjects already."""
    for other in others:
        for theirs in other.get("subjects") or ():
            for ours in config.get("subjects") or ():
                if intersection(ours, theirs) is not None:
                    verb = f"STREAM {config['name']}"
                    raise refusal(verb, "subjects overlap with an existing stream", 400, 10065)


def check_stream_update(old: Config, new: Config) -> None:
    """Raise ApiError for a change of a field that is fixed at a stream's creation."""
    _check_fixed(f"STREAM.UPDATE.{new['name']}", old, new, _STREAM_FIXED, "stream configuration ")
    for key, words in _NEVER_OFF:
        if old[key] and not new[key]:
            text = f"{words} can not be disabled"
            raise refusal(f"STREAM.UPDATE.{new['name']}", text, 500, 10052)


def full_consumer_config(requested: Mapping[str, Any]) -> Config:
    """Complete a consumer's configuration. Raises ApiError if it contradicts itself."""
    verb = f"CONSUMER {requested['name']}"
    given = {key: value for key, value in requested.items() if value not in (None, [], "")}
    config: Config = {**_CONSUMER_DEFAULTS, **given, "metadata": _metadata(requested)}
    for key in ("ack_wait", "max_deliver", "max_waiting", "max_ack_pending"):
        config[key] = config[key] or _CONSUMER_DEFAULTS[key]
    if "durable_name" not in config and not config.get("inactive_threshold"):
        config["inactive_threshold"] = 5 * _SECOND
    if config.get("filter_subject") and config.get("filter_subjects"):
        text = "consumer cannot have both FilterSubject and FilterSubjects specified"
        raise refusal(verb, text, 400, 10136)
    for one, other in combinations(filters_of(config), 2):
        if covers(one, other) or covers(other, one):  # a partial overlap is accepted
            raise refusal(verb, "consumer subject filters cannot overlap", 400, 10138)
    _check_start(verb, config)
    _check_built(verb, config, _CONSUMER_BUILT)
    return config


def check_consumer_update(old: Config, new: Config) -> None:
    """Raise ApiError for a change of a field that is fixed at a consumer's creation."""
    _check_fixed(f"CONSUMER {new['name']}", old, new, _CONSUMER_FIXED, "")


def as_shown(config: Config) -> Config:
    """Return the configuration as the server shows it: with the server's own metadata keys."""
    own = {"_nats.level": "0", "_nats.req.level": "0", "_nats.ver": "2.15.1"}
    return {**config, "metadata": {**own, **config["metadata"]}}


def _metadata(requested: Mapping[str, Any]) -> dict[str, str]:
    given = requested.get("metadata") or {}
    return {key: value for key, value in given.items() if not key.startswith(_SERVERS_OWN)}


def _default_window(config: Config) -> int:
    window = 120 * _SECOND
    return min(window, config["max_age"]) if config["max_age"] else window


def _check_fixed(
    verb: str, old: Config, new: Config, fixed: Sequence[tuple[str, str]], prefix: str
) -> None:
    err_code = 10052 if prefix else 10012
    for key, word in fixed:
        if (old.get(key) or None) != (new.get(key) or None):
            update = f"{prefix}update can not change {word}"
            text = update if prefix else f"{word} can not be updated"
            raise refusal(verb, text, 500, err_code)


def _check_built(verb: str, config: Config, built: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse values that are not built here: a test must not pass because they are ignored."""
    for key, values in built.items():
        if config.get(key) not in (None, "", *values):
            raise NotImplementedError(
                f"{verb}: the memory transport has no {key}={config[key]!r}; use a real server"
            )


def _check_start(verb: str, config: Config) -> None:
    policy = config["deliver_policy"]
    if policy not in _POLICIES:
        raise NotImplementedError(f"the memory transport has no deliver policy {policy!r}")
    for wants, key, word in _START_FIELDS:
        is_set = bool(config.get(key))
        if is_set != (policy == wants):
            shown = f"consumer delivery policy is deliver {policy.replace('_', ' ')}"
            text = f"{shown}, but optional {word} is {'also' if is_set else 'not'} set"
            raise refusal(verb, text, 400, 10094)
