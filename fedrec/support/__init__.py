"""Support answers: requests are matched to a partner's own answers, or handed over to a person."""
