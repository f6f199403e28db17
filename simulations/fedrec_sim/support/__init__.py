"""The support example: six desks of real answers, requests written for fedrec, and what matching is worth."""
