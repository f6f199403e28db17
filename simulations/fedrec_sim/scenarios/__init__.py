"""Scenarios: federations with event types, catalogue fields, rules and figures of their own; `fedrec scenarios`."""
