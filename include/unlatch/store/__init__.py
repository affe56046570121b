"""The durable memory: incidents, steps, crash events, cursors, leases, and the hash-chained audit.

Callers import `SqlStore` from `unlatch.store.sql_store`, and what it returns beyond the ports from
`unlatch.store.audit`.
"""
