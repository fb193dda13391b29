"""Secure aggregation: the server learns a sum and nothing else.

SecAgg+ (Bell et al., CCS 2020) with the unmasking rule and the consistency step of
Bonawitz et al. (CCS 2017). Everything in here is sans-IO: values and messages in,
values and messages out; no socket, clock, file or log. Secrets come from the operating
system.
"""
