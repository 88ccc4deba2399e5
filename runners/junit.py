"""Checks as a JUnit file, which GitLab, Jenkins and others show beside a merge request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from runners.requirements import Check

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def junit(checked: Mapping[str, Sequence[Check]]) -> str:
    """A suite for each run, a case for each condition."""
    root = ElementTree.Element("testsuites", name="recipe check")
    for run_id, checks in checked.items():
        failed = sum(not check.met for check in checks)
        counts = {"name": run_id, "tests": str(len(checks)), "failures": str(failed), "errors": "0"}
        suite = ElementTree.SubElement(root, "testsuite", counts)
        for check in checks:
            case = ElementTree.SubElement(suite, "testcase", classname=run_id, name=_clean(check.name))
            if not check.met:
                said = _clean(check.said)
                ElementTree.SubElement(case, "failure", message=said).text = said
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
