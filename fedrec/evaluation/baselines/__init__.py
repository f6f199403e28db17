"""What every model is held against in the same run: linear and factor models, a transformer, federated ones.

Import from the modules: only those of the trained baselines need torch, only `factors` needs implicit.
"""
