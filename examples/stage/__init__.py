"""What puts the services of `voice` on a stage: brokers, processes, accounts and the show.

No part of the platform. A deployment has its own way of starting processes, and no use for the
rest; only `accounts` knows what a complete run is.
"""
