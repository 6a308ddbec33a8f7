"""Reports made by hand, for tests of what becomes of findings."""

from __future__ import annotations

from bncli.report import Column, Finding, Report, Severity, Table


def finding(code="BN001", subject="here", *, severity="error", message="a fact", path="", **more):
    return Finding(code, Severity(severity), subject, message, path=path, **more)


def report(
    *findings, checked=None, names=None, read=("net.pt",), command="hand-made", **more
) -> Report:
    table = Table("layers", "Layers", (Column("name", "name"),), [{"name": "a"}])
    return Report(
        command, {"path": read[0] if read else None}, (table,), tuple(findings),
        read=tuple(read), checked=checked or {},
        names=names or checked or {}, **more,
    )  # fmt: skip


def of_layers(*layers, faulty=(), code="BN001", path="net.pt", message="a fact", **more) -> Report:
    """A report on all layers of one file, with a finding for each faulty one."""
    found = [finding(code, layer, path=path, message=message) for layer in faulty]
    return report(*found, checked={path: layers}, read=(path,), **more)


def codes(given: Report) -> list[tuple[str, str]]:
    return [(item.code, item.subject) for item in given.findings]
