-- Findings go with their run after thirty days: without this each run that goes would be looked for among all of them.
CREATE INDEX reconciliation_findings_of_run ON reconciliation_findings (reconciliation_id);
