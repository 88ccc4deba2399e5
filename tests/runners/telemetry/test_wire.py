"""What the sampler says, read line by line."""

from __future__ import annotations

import json

import pytest

from runners.telemetry.wire import Facts, Lost, Sample, Wire

BEGIN = json.dumps(
    {
        "facts": {"hostname": "h", "ram_total_mib": None, "gpus": [{"index": 0, "power_limit_w": None}]},
        "at": 10.5,
        "fields": ["cpu", "ram_used_mib"],
        "gpu_fields": ["utilization", "throttle"],
    }
).encode()


def test_what_has_not_changed_is_as_it_was_and_what_is_unknown_is_left_out() -> None:
    wire = Wire()
    assert wire.read(BEGIN) == Facts(10.5, {"hostname": "h", "gpus": [{"index": 0}]})
    assert wire.read(b"7,11.5,-,100;0,97,36") == Sample(
        7,
        11.5,
        {
            "ram_used_mib": 100,
            "gpus": [{"index": 0, "utilization": 0.97, "throttle": ["sw_thermal_slowdown", "sw_power_cap"][::-1]}],
        },
    )
    assert wire.read(b"8,12.5,0.5,;0,,0") == Sample(
        8, 12.5, {"cpu": 0.5, "ram_used_mib": 100, "gpus": [{"index": 0, "utilization": 0.97, "throttle": []}]}
    )
    assert wire.read(b'{"lost":0,"at":13.0,"uuid":"GPU-0","why":"gone"}') == Lost(13, 0, "GPU-0", "gone")
    assert wire.read(b"9,13.5,-,") == Sample(9, 13.5, {"ram_used_mib": 100})


def test_one_that_begins_anew_knows_nothing_of_the_one_before() -> None:
    wire = Wire()
    wire.read(BEGIN)
    wire.read(b"7,11.5,0.25,100")
    wire.read(BEGIN)
    assert wire.read(b"9,13.5,-,") == Sample(9, 13.5, {})


@pytest.mark.parametrize(
    "line", [b"", b"Traceback (most recent call last):", b"7,11.5,1", b"7,x,1,2", b'{"half', b"{}", b"\xff\xfe", b"[1]"]
)
def test_what_is_no_line_of_it_is_none(line: bytes) -> None:
    wire = Wire()
    wire.read(BEGIN)
    assert wire.read(line) is None
