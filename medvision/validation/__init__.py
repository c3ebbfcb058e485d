"""The gate: an evaluation held against the policy, with every reason."""
