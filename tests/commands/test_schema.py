"""`bncli schema` prints the document that is in the package, and takes none of a report's flags."""

from __future__ import annotations

import json

from tests.conftest import schema


def test_the_command_prints_it(run, run_process):
    result = run("schema")
    assert (result.code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == schema().schema
    assert result.stdout.endswith("}\n")
    assert run_process("schema").stdout == result.stdout
    assert run("schema", "-f", "json").code == 2
