"""The search for the edit that makes theirs' steps mine's."""
