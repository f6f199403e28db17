"""The attack laboratory: hostile partners in a simulation, and how well each aggregator bears them."""
