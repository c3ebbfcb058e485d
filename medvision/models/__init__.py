"""Networks: which ones there are, how they are built, frozen and given weights, and how one is kept as a package."""
