"""`fedrec bench fairness`: who is shown and who is served, exactly and under DP, with and without floors."""
