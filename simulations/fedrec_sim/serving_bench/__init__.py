"""A partner's service under load: latency, throughput, events in the next answer, faults; client and server apart."""
