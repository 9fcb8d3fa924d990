"""Operations: answers for people who operate a server. Each room answers one question.

They use the port only and disturb no consumer. No worker has to run, and nothing is created unless
the docstring says so.
"""
