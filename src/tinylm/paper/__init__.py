"""Every table and figure of the paper: specs, the runner, and the report."""
