"""What several commands compute alike and report: passes, tables, findings, verdicts."""
