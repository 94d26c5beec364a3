"""Acting for all rollout workers of a machine on one device: many small batches become one.

A worker writes its rows (observations, masks, recurrent states, and the uniform numbers to draw with) to
memory that it shares with the server, and reads the decisions there; a socket says when. The server keeps no
state of a match, so that a worker is its matches' only owner, as without a server.
Source: forward-pass workers of Berner et al. 2019, arXiv:1912.06680; Espeholt et al. 2020, arXiv:1910.06591.
"""
