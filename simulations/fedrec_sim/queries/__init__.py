"""The published test of requests in words: 500 with answers by rule, and how searches fare on them."""
