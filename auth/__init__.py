"""Turns a credential into a grant and answers what the grant allows.

Knows nothing of HTTP or CRDTs. This release serves open rooms on loopback and has no credentials yet.
"""
