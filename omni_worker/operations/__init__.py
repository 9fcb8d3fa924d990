"""Operations: what people ask at night. Each room answers one question and disturbs no consumer.

They work over the port alone: no worker has to run, and nothing is created unless it is said.
"""
