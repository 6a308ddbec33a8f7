"""JUnit's XML, as CI servers read it: a suite a file, a case for each place and each finding.

There is no standard of it; these are the elements and attributes that Jenkins' and GitLab's
readers agree on. What does not fail (a finding below `--fail-on`) is a passing case that says so
in its output, and what is suppressed is a skipped one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from bncli.report import fails, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.renderers.interface import RenderContext
    from bncli.report import Finding, Report


def render(report: Report, context: RenderContext) -> str:
    """The report's suites; the counts of the root are their sums."""
    suites: dict[str, list[tuple[str, str]]] = {}
    for path, kind, case in _cases(report, context):
        suites.setdefault(path, []).append((kind, case))
    every = [kind for cases in suites.values() for kind, _ in cases]
    name = f"bncli {report.command}"
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(f"<testsuites {_attributes(name=name)} {_counts(every)}>")
    for path, cases in suites.items():
        lines.append(f"  <testsuite {_attributes(name=path or name)} {_counts(_kinds(cases))}>")
        lines += [case for _, case in cases]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def _cases(report: Report, context: RenderContext) -> Iterator[tuple[str, str, str]]:
    """The file, the kind (passed, failure, error or skipped) and the XML of each case."""
    for unread in report.unread:
        body = f"<error {_attributes(message=unread.problem, type='unread')}/>"
        yield unread.path, "error", _case(report, unread.path, "file", body)
    for finding in report.findings:
        path = report.file_of(finding)
        said = f"{finding.text} {finding.hint}".rstrip()
        if fails(finding, context.fail_on):
            kind = "failure"
            attributes = _attributes(message=said, type=finding.severity.value)
            body = f"<failure {attributes}>{_text(said)}</failure>"
        else:
            kind = "passed"
            body = f"<system-out>{_text(f'{finding.severity.value}: {said}')}</system-out>"
        yield path, kind, _case(report, path, _name(finding), body)
    for item in report.suppressed:
        path = report.file_of(item.finding)
        body = f"<skipped {_attributes(message=f'{item.by}: {item.finding.text}')}/>"
        yield path, "skipped", _case(report, path, _name(item.finding), body)
    found = {(finding.path, finding.subject) for finding in report.findings}
    found |= {(item.finding.path, item.finding.subject) for item in report.suppressed}
    for path, subjects in report.checked.items():
        if not subjects and path and not report.nothing_checked:
            body = f"<skipped {_attributes(message='there is nothing to check in it.')}/>"
            yield path, "skipped", _case(report, path, "anything to check", body)
        for subject in subjects:
            if (path, subject) not in found:
                where = path or report.first_file
                yield where, "passed", _case(report, where, subject, "")
    if report.nothing_checked:
        path = report.first_file
        message = report.verdict or "nothing was checked."
        body = f"<failure {_attributes(message=message, type='nothing')}/>"
        yield path, "failure", _case(report, path, "anything to check", body)
    elif not report.findings and not report.unread and not any(report.checked.values()):
        path = report.first_file
        yield path, "passed", _case(report, path, "no finding that counts", "")


def _case(report: Report, path: str, name: str, body: str) -> str:
    """One case. Its class name has the command, so that two commands' cases stay apart."""
    attributes = _attributes(classname=f"bncli.{report.command}", name=name, file=path)
    return f"    <testcase {attributes}{f'>{body}</testcase' if body else '/'}>"


def _name(finding: Finding) -> str:
    return f"{finding.code} {finding.subject}"


def _kinds(cases: list[tuple[str, str]]) -> list[str]:
    return [kind for kind, _ in cases]


def _counts(kinds: list[str]) -> str:
    """The numbers that a suite carries as attributes."""
    return _attributes(
        tests=str(len(kinds)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
    )


def _attributes(**values: str) -> str:
    """Attributes as XML; those without a value are left out."""
    return " ".join(f"{key}={quoteattr(_line(value))}" for key, value in values.items() if value)


def _text(text: str) -> str:
    return escape(_line(text))


def _line(text: str) -> str:
    """Text as one line; no control character is left, which XML 1.0 has no way to write."""
    return printable(text)
