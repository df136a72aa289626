# test_contract.py - wire/api.yaml says what brigd serves, and nothing else.
# SPDX-License-Identifier: Apache-2.0

import re

from conftest import TREE


def documented():
    text = (TREE / "wire/api.yaml").read_text()
    routes, path = set(), None
    for line in text.split("components:")[0].splitlines():
        if m := re.match(r"  (/\S*):$", line):
            path = re.sub(r"\{\w+\}", "{}", m.group(1))
        elif m := re.match(r"    (get|post|put|patch|delete):$", line):
            routes.add((m.group(1).upper(), path))
    return routes


def served():
    text = (TREE / "src/brigd/route.c").read_text()
    for name, value in re.findall(r'#define (ID2?) "(\S+)"', text):
        text = re.sub(rf'\b{name} "', f'"{value}', text)
        text = re.sub(rf'\b{name},', f'"{value}",', text)
    return set(re.findall(r'\{ "([A-Z]+)", "([^"]+)"', text))


def test_paths():
    assert len(served()) == 39
    assert documented() == served()


def test_error_codes_are_few():
    """Statuses that api.md allows, and no other, are written in the code."""
    allowed = {400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 507}
    for file in (TREE / "src/brigd").glob("*.c"):
        text = file.read_text()
        for status in re.findall(
                r"(?:fault_set|http_reply_error)\(\s*&?[\w.>-]+,\s*(\d{3})",
                text):
            assert int(status) in allowed, (file, status)
