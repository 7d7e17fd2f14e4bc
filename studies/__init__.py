"""The studies: what one of them alone has, a folder each. The default study's parameters and stages are at the root."""
