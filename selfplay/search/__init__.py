"""Thinking before acting: a policy that searches with its own priors and values. See docs/search.md.

`worlds` holds copies of matches as a seat imagines them, `minds` what the policies think of what they see,
`belief` which worlds agree with what a seat has seen, `tree` the search itself, `player` who uses all that.
"""
