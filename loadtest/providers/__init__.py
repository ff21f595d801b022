"""Simulated providers for tests and load tests on the loopback interface: WeChat template messages and SMS.

They believe whatever reaches them, keep (invented) personal data in memory, and let anybody change their
faults: do not bind them to an address that others can reach.
"""
