"""The partner's side: a thin Flower ClientApp and the worker that owns data, model, ledger and budget."""
