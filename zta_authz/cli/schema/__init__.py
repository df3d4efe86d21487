"""JSON Schemas (draft 2020-12) of the documents of `zta.dev/v1`, for editors and other tools.

The service reads documents with `zta_authz.policy.documents`, never with these schemas. Limits and patterns are the
readers' own constants, and tests compare fields and verdicts of both.
"""
