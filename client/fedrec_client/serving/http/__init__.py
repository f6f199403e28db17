"""The transport of a partner's service: who may call, how much, how it is told when it fails, and how it is watched."""
