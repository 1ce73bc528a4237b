"""The edge agent's decisions: what to take in, what to send next, what an answer means. No I/O."""
