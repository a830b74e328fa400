"""Cannot be imported."""

raise RuntimeError("no license file")
