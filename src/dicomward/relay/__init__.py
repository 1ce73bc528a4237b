"""The sans-I/O heart of the gateway: two associations, identity, policy and limits; inputs in, effects out."""
