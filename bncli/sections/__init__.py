"""What several commands put into their reports: tables, findings of a pass, verdicts."""
