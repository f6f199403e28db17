"""Real-time recommendations at the partner: store, live engine, service, APIs and pages. Everything here is private."""
